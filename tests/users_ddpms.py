"""Diffusion models of a user's own, outside the package, each a class that overrides one hook."""

import torch

from lit_generative.diffusion import DDPM


class PerceptionWeighted(DDPM):
    """The less is left of the image, the more an error counts: 1 / (1 + SNR) (P2, Choi et al. 2022, k = gamma = 1)."""

    def loss_weight(self, t):
        return 1 / (1 + self.schedule.log_snr(t).exp())


class InputPerturbed(DDPM):
    """In training there is more noise than is said, as there will be in sampling (Ning et al. 2023)."""

    def perturb(self, x, t, noise):
        return super().perturb(x, t, noise + 0.1 * torch.randn_like(noise))


class OffsetNoise(DDPM):
    """The noise has a part that all pixels share, so that brightness is noised too."""

    def losses_at(self, t, x, noise, y=None):
        return super().losses_at(t, x, noise + 0.1 * torch.randn_like(noise[..., :1, :1]), y)
