"""Posteriors q(z|x): from what an encoder puts out to a distribution of latents.

An encoder takes one as ``posterior`` and asks it how many outputs it needs.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, register_kl
from zuko.distributions import NormalizingFlow
from zuko.flows import MaskedAutoregressiveTransform
from zuko.transforms import ComposedTransform

from lit_generative.checks import check_count
from lit_generative.description import Described
from lit_generative.nn.heads import LOG_SCALES, diagonal_normal
from lit_generative.numerics import FullPrecisionModule, at_least_single
from lit_generative.vae.flows import AFFINE, FlowDistribution, identity_at_first

__all__ = [
    "DiagonalNormalPosterior",
    "FullCovarianceNormal",
    "FullNormalPosterior",
    "InverseAutoregressivePosterior",
    "Posterior",
]


class Posterior(Described, FullPrecisionModule, ABC):
    """Makes q(z|x), batch shape (B,), event shape (latent_dim,), of an encoder's outputs; q has ``rsample``."""

    @abstractmethod
    def num_parameters(self, latent_dim: int) -> int:
        """Return how many outputs of the encoder it takes for ``latent_dim`` dimensions."""

    @abstractmethod
    def forward(self, parameters: Tensor) -> Distribution:
        """Return q(z|x) for an encoder's outputs (B, num_parameters)."""


class DiagonalNormalPosterior(Posterior):
    """N(mean, diag(exp(log-variance))) (Kingma & Welling 2014, eq. 9), as encoders have it by themselves."""

    def num_parameters(self, latent_dim: int) -> int:
        """Return 2 d: means and log-variances."""
        return 2 * latent_dim

    def forward(self, parameters: Tensor) -> Independent:
        """Return q(z|x) for means and log-variances (B, 2 d)."""
        mean, log_variance = at_least_single(parameters).chunk(2, dim=1)
        return diagonal_normal(mean, 0.5 * log_variance)


class FullCovarianceNormal(MultivariateNormal):
    """A multivariate normal whose KL to a diagonal one is known to ``torch.distributions.kl_divergence``."""


class FullNormalPosterior(Posterior):
    """N(mean, L L^T) with any covariance: L = diag(s) (I + M), s positive, M strictly lower triangular.

    M has no unit, so that correlations do not blow up where scales are small.
    """

    def num_parameters(self, latent_dim: int) -> int:
        """Return d + d (d + 1) / 2: means, log s, and what of M is not 0."""
        return 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def forward(self, parameters: Tensor) -> FullCovarianceNormal:
        """Return q(z|x) for parameters (B, d + d (d + 1) / 2)."""
        num_parameters = parameters.shape[1]
        dim = next(d for d in range(1, num_parameters + 1) if self.num_parameters(d) >= num_parameters)
        mean, log_scale, below = at_least_single(parameters).split([dim, dim, num_parameters - 2 * dim], dim=1)
        rows, columns = torch.tril_indices(dim, dim, offset=-1, device=parameters.device)
        triangle = torch.eye(dim, device=mean.device).repeat(len(mean), 1, 1)
        triangle[:, rows, columns] = below
        scale_tril = log_scale.clamp(*LOG_SCALES).exp()[:, :, None] * triangle
        return FullCovarianceNormal(mean, scale_tril=scale_tril, validate_args=False)


@register_kl(FullCovarianceNormal, Independent)
def _kl_to_diagonal(q: FullCovarianceNormal, p: Independent) -> Tensor:
    """Return KL(N(m, S) || N(n, diag(v))) = 1/2 sum_i [(S_ii + (m_i - n_i)^2) / v_i - 1 + log v_i] - 1/2 log det S."""
    if not isinstance(p.base_dist, Normal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError  # what kl_divergence says of pairs that it does not know
    variance, scale = p.base_dist.variance, q.scale_tril
    ratio = (scale.square().sum(-1) + (q.loc - p.base_dist.loc).square()) / variance
    log_determinant = 2 * scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * ((ratio - 1 + variance.log()).sum(-1) - log_determinant)


class FlowPosterior(FlowDistribution):
    """A flow's distribution that keeps the density of its last draw, so that asking for it costs nothing more."""

    _drawn: tuple[Tensor | None, Tensor | None] = None, None  # latents and their log-density

    @property
    def mean(self) -> Tensor:
        """Where the flow takes the normal's mean, (B, latent_dim): a point in the middle; E[z] has no closed form."""
        with self.full_precision():
            return self.flow.transform.inv(self.flow.base.mean)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, differentiably."""
        with self.full_precision():
            self._drawn = z, _ = self.flow.rsample_and_log_prob(torch.Size(sample_shape))
        return z

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log q, in nats."""
        z, log_prob = self._drawn
        if value is z and log_prob is not None and (log_prob.requires_grad or not torch.is_grad_enabled()):
            return log_prob
        return super().log_prob(value)


class InverseAutoregressivePosterior(Posterior):
    """A diagonal normal, then inverse autoregressive steps that see the image (IAF, Kingma et al. 2016, eq. 9 and 10).

    A step is z <- sigma z + mu, where sigma and mu of a dimension come from those before it and from the image; it
    starts as the identity. Sampling takes one pass a step, and the density of a sample is known with it; of any other z
    the steps are inverted exactly, in latent_dim passes each.

    Args:
        latent_dim: The size of z.
        layers: How many steps; each has the dimensions in the other order than the one before.
        hidden: The width of a step's network, and how many features of the image the encoder puts out for them.
    """

    def __init__(self, latent_dim: int, layers: int = 2, hidden: int = 128) -> None:
        super().__init__()
        for name, count in {"latent_dim": latent_dim, "layers": layers, "hidden": hidden}.items():
            check_count(name, count)
        self.latent_dim, self.hidden = latent_dim, hidden
        self.normal = DiagonalNormalPosterior()
        orders = [torch.arange(latent_dim), torch.arange(latent_dim).flip(0)]
        self.steps = identity_at_first(
            MaskedAutoregressiveTransform(
                latent_dim, hidden, order=orders[i % 2], hidden_features=(hidden, hidden), **AFFINE
            )
            for i in range(layers)
        )

    def num_parameters(self, latent_dim: int) -> int:
        """Return 2 d + hidden: means, log-variances, and features of the image.

        Raises:
            ValueError: If ``latent_dim`` is not the one that this posterior was made for.
        """
        if latent_dim != self.latent_dim:
            raise ValueError(f"latent_dim={latent_dim} of the encoder is not its posterior's {self.latent_dim}")
        return 2 * latent_dim + self.hidden

    def forward(self, parameters: Tensor) -> FlowPosterior:
        """Return q(z|x) for parameters (B, 2 d + hidden)."""
        normal, features = at_least_single(parameters).split([2 * self.latent_dim, self.hidden], dim=1)
        steps = ComposedTransform(*(step(features) for step in self.steps))
        return FlowPosterior(NormalizingFlow(steps.inv, self.normal(normal)))
