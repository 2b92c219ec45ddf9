"""The variational autoencoder."""

from math import log, prod
from typing import ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from lit_generative.core import GenerativeModule
from lit_generative.sampling import sampling_mode
from lit_generative.vae.likelihoods import Likelihood

__all__ = ["VAE"]


class VAE(GenerativeModule):
    """The variational autoencoder of Kingma & Welling 2014, trained on the evidence lower bound, eq. 3.

    log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)), estimated with one z per image.

    To change it, override one hook: :meth:`prior`, :meth:`encode`, :meth:`decode`, :meth:`kl` or :meth:`objective`.

    Args:
        encoder: Maps images (B, C, H, W) and labels to a distribution q(z|x, y) over (B, latent_dim).
        decoder: Maps latents (B, latent_dim) and labels to the likelihood's parameters (B, C, H, W).
        likelihood: Maps these to a distribution over images.
        latent_dim: The size of z.
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        optimizer: Makes the optimizer from the parameters. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule, which advances every step.
    """

    sampler_name: ClassVar[str] = "prior, mean of the likelihood"
    loss_units = dict.fromkeys(("loss", "nelbo", "nll", "kl"), "nats") | {"bits_per_dim": "bits/dim"}

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        num_classes: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent_dim = latent_dim

    def prior(self) -> Distribution:
        """Return p(z) = N(0, I), event shape (latent_dim,)."""
        zeros = torch.zeros(self.latent_dim, device=self.device)
        return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y), batch shape (B,), event shape (latent_dim,)."""
        return self.encoder(x, y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z, y), batch shape (B,), event shape (C, H, W)."""
        return self.likelihood(self.decoder(z, y))

    def kl(self, q: Distribution, z: Tensor) -> Tensor:
        """Return KL(q || p(z)), (B,), in nats; ``z`` (B, latent_dim), drawn from q, is for priors of no closed form."""
        return kl_divergence(q, self.prior())

    def objective(self, nll: Tensor, kl: Tensor) -> Tensor:
        """Return what is minimised, (B,): the negative bound. A beta-VAE (Higgins et al. 2017) has ``nll + beta * kl``.

        Args:
            nll: -log p(x|z), (B,), in nats.
            kl: KL(q(z|x) || p(z)), (B,), in nats.
        """
        return nll + kl

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return loss, nll, kl and negative bound (nelbo), (B,), in nats; bits_per_dim for a discrete likelihood."""
        q = self.encode(x, y)
        z = q.rsample()
        nll = -self.decode(z, y).log_prob(x)
        kl = self.kl(q, z)
        nelbo = nll + kl
        losses = {"loss": self.objective(nll, kl), "nelbo": nelbo, "nll": nll, "kl": kl}
        if self.likelihood.is_discrete:
            losses["bits_per_dim"] = nelbo / (log(2) * prod(x.shape[1:]))
        return losses

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw z from the prior and return the means of p(x|z), (n, C, H, W) in [-1, 1].

        Args:
            n: How many.
            y: Labels (n,) of a conditional model.
            generator: The source of all randomness; None: torch's global one.
        """
        return self.decode(self.prior().sample((n,)), y).mean

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of p(x|z) at the posterior's mean z, (B, C, H, W) in [-1, 1], for images ``x``."""
        return self.decode(self.encode(x, y).mean, y).mean.clamp(-1, 1)
