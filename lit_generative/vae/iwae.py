"""The importance weighted autoencoder."""

from math import log

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution

from lit_generative.checks import check_count
from lit_generative.vae.bounds import negative_bound
from lit_generative.vae.likelihoods import Likelihood
from lit_generative.vae.mixture import AggregatePrior
from lit_generative.vae.module import VAE
from lit_generative.vae.priors import Prior

__all__ = ["IWAE"]


class IWAE(VAE):
    """A VAE trained on a tighter bound, of K latents an image (Burda et al. 2016, eq. 8).

    log p(x) >= E[log 1/K sum_k w_k], with w_k = p(x|z_k) p(z_k) / q(z_k|x), z_k drawn from q(z|x). With K = 1 it is the
    evidence lower bound; it rises with K to log p(x). A step costs about as much as one of K times the batch.

    The gradient's signal for the encoder fades as K grows, against its noise (Rainforth et al. 2018). The doubly
    reparameterised gradient (Tucker et al. 2019, eq. 8) has the same mean and does not: it is
    sum_k (w_k / sum_l w_l)^2 (d log w_k / d z_k) (d z_k / d phi), in which phi acts through z alone.

    The hooks :meth:`kl` and :meth:`objective` are of the bound of one latent and are not asked.

    Args:
        encoder: Maps images (B, C, H, W) and labels to a distribution q(z|x, y) over (B, latent_dim).
        decoder: Maps latents (B, latent_dim) and labels to the likelihood's parameters (B, C, H, W).
        likelihood: Maps these to a distribution over images.
        latent_dim: The size of z.
        num_samples: K.
        is_doubly_reparameterised: Whether the encoder learns by Tucker et al.'s gradient.
        prior_model: p(z). None: N(0, I).
        aggregate_prior: Fits a mixture to q(z) at each validation, from which samples are drawn instead of from the
            prior; it needs a data module. None: samples are drawn from the prior.
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        optimizer: Makes the optimizer from the parameters. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule, which advances every step.

    Raises:
        ValueError: If ``num_samples`` is below 1.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        num_samples: int = 8,
        is_doubly_reparameterised: bool = True,
        prior_model: Prior | None = None,
        aggregate_prior: AggregatePrior | None = None,
        num_classes: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        check_count("num_samples", num_samples)
        super().__init__(
            encoder,
            decoder,
            likelihood,
            latent_dim,
            prior_model=prior_model,
            aggregate_prior=aggregate_prior,
            num_classes=num_classes,
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
        )
        self.num_samples = num_samples
        self.is_doubly_reparameterised = is_doubly_reparameterised

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return loss, the bound of K latents, and nelbo, nll and kl, means over them, (B,), in nats."""
        q = self.encode(x, y)
        z = q.rsample(torch.Size([self.num_samples]))  # (K, B, latent_dim)
        log_q = q.log_prob(z)
        log_prior = self.prior().log_prob(z.flatten(0, 1)).unflatten(0, (self.num_samples, -1))
        log_likelihood = self.log_likelihood(x, z, y)
        log_w = log_likelihood + log_prior - log_q  # (K, B)
        loss = log(self.num_samples) - log_w.logsumexp(0)
        if self.is_doubly_reparameterised and z.requires_grad:
            loss = loss.detach() + _vanishing(_doubly_reparameterised(q, z, log_likelihood + log_prior, log_w))
        kl = (log_q - log_prior).mean(0)
        return {"loss": loss} | negative_bound(self.likelihood, x, -log_likelihood.mean(0), {"kl": kl})


def _doubly_reparameterised(q: Distribution, z: Tensor, log_joint: Tensor, log_w: Tensor) -> Tensor:
    """Return (B,) with the gradient of the negative bound: IWAE's for the decoder, Tucker et al.'s for the encoder.

    The former is -sum_k v_k d log p(x, z_k), v_k = w_k / sum_l w_l. The latter comes through z alone and has a second
    factor v_k, with which every gradient that arrives at z is multiplied.
    """
    v = log_w.detach().softmax(0)  # (K, B)
    at = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(q.log_prob(at).sum(), at)  # d log q / d z, without the way through q's parameters
    z.register_hook(lambda gradient: v[..., None] * gradient)
    return -(v * (log_joint - (slope * z).sum(2))).sum(0)


def _vanishing(value: Tensor) -> Tensor:
    """Return 0 with the gradient of ``value``."""
    return value - value.detach()
