"""Games of a user's own, outside the package, each a class of at most ten lines."""

import torch
from torch.optim import Optimizer

from lit_generative.gan import GAN


class LSGANWithNoise(GAN):
    def discriminate(self, x, y=None):
        return super().discriminate(x + 0.1 * torch.randn_like(x), y)

    def discriminator_loss(self, real, fake, y=None):
        return (self.discriminate(real, y) - 1) ** 2 + self.discriminate(fake, y) ** 2

    def generator_loss(self, real, fake, y=None):
        return (self.discriminate(fake, y) - 1) ** 2


class ClippedWGAN(GAN):
    def configure_optimizers(self):
        optimizers, schedules = super().configure_optimizers()
        optimizers[0].register_step_post_hook(self.clip)
        return optimizers, schedules

    @torch.no_grad()
    def clip(self, optimizer: Optimizer, *_):
        for p in self.discriminator.parameters():
            p.clamp_(-0.01, 0.01)
