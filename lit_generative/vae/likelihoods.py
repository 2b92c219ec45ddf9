"""Likelihoods p(x|z): from what a decoder puts out, (B, C, H, W), to a distribution over images in [-1, 1].

Each returns a ``torch.distributions`` object whose ``log_prob`` of images (B, C, H, W) is (B,), in nats, summed over
channels and pixels.
"""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints
from torch.nn import functional as F

from lit_generative.description import Described

__all__ = ["Bernoulli", "BernoulliImages", "DiscretizedLogistic", "DiscretizedLogisticImages", "Gaussian", "Likelihood"]


class Likelihood(Described, nn.Module, ABC):
    """A map from decoder outputs (B, C, H, W) to p(x|z).

    Attributes:
        is_discrete: Whether p is a probability of one of 256 levels, so that bits/dim are defined.
    """

    is_discrete = False

    @abstractmethod
    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) with event shape (C, H, W)."""


class Bernoulli(Likelihood):
    """Each pixel is white with probability sigmoid(decoded) (Kingma & Welling 2014, appendix C.1).

    It is a likelihood of binary images; of gray ones, ``log_prob`` is the cross-entropy of (x + 1) / 2, in nats.
    """

    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) with logits ``decoded``, (B, C, H, W)."""
        return Independent(BernoulliImages(decoded.float()), 3)


class Gaussian(Likelihood):
    """N(x; decoded, scale^2 I), a density over real-valued images (Kingma & Welling 2014, appendix C.2).

    Args:
        scale: The standard deviation, in units of x in [-1, 1]. None: one learned scale (sigma-VAE, Rybkin et al.
            2021), which sets the balance of reconstruction and KL by itself.
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        if scale is not None and scale <= 0:
            raise ValueError(f"scale={scale}: a standard deviation must be positive, or null for a learned one")
        log_scale = torch.tensor(math.log(scale or 0.3))
        if scale is None:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) with means ``decoded``, (B, C, H, W)."""
        return Independent(Normal(decoded.float(), self.log_scale.exp(), validate_args=False), 3)


class DiscretizedLogistic(Likelihood):
    """A logistic integrated over the bins of 256 levels (Kingma et al. 2016, IAF, section 5.2; Ho et al. 2020 eq. 13).

    It is a true probability of 8-bit images, so the bound on it is in bits/dim and comparable with the literature.
    There is one learned scale for all pixels.
    """

    is_discrete = True

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) with locations ``decoded``, (B, C, H, W)."""
        return Independent(DiscretizedLogisticImages(decoded.float(), self.log_scale.exp()), 3)


class BernoulliImages(Distribution):
    """Independent pixels, 1 with probability sigmoid(logits), else -1."""

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    has_rsample = False

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[x] in [-1, 1]."""
        return 2 * torch.sigmoid(self.logits) - 1

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw pixels from {-1, 1}."""
        p = torch.sigmoid(self.logits).expand(self._extended_shape(torch.Size(sample_shape)))
        return 2 * torch.bernoulli(p) - 1

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of each pixel of ``value`` in [-1, 1], in nats."""
        logits, unit = torch.broadcast_tensors(self.logits, (value + 1) / 2)
        return -F.binary_cross_entropy_with_logits(logits, unit, reduction="none")


class DiscretizedLogisticImages(Distribution):
    """Independent pixels on the 256 levels -1, -1 + 2/255, ..., 1.

    A level's probability is the logistic's mass between the midpoints to its neighbours; the outermost two levels take
    the tails, so that the 256 sum to 1.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_rsample = False
    half_bin = 1 / 255

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[x] in [-1, 1], to half a level: that of the logistic clipped to [-1, 1], 1 - integral of its CDF."""
        upper, lower = (1 - self.loc) / self.scale, (-1 - self.loc) / self.scale
        return 1 - self.scale * (F.softplus(upper) - F.softplus(lower))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels in [-1, 1] by inverting the CDF."""
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), device=self.loc.device).clamp_(1e-7, 1 - 1e-7)
        x = self.loc + self.scale * torch.logit(u)
        return torch.round((x.clamp(-1, 1) + 1) / (2 * self.half_bin)) * (2 * self.half_bin) - 1

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of each pixel of ``value`` (levels in [-1, 1]), in nats.

        Between bin edges a > b, log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)),
        which neither underflows nor needs an approximation by the density.
        """
        centred = value - self.loc
        above, below = (centred + self.half_bin) / self.scale, (centred - self.half_bin) / self.scale
        log_below_upper_edge = F.logsigmoid(above).where(value < 1 - self.half_bin, 0)
        log_above_lower_edge = F.logsigmoid(-below).where(value > -1 + self.half_bin, 0)
        is_inner = (value < 1 - self.half_bin) & (value > -1 + self.half_bin)
        log_width = torch.log(-torch.expm1(-2 * self.half_bin / self.scale)).where(is_inner, 0)
        return log_below_upper_edge + log_above_lower_edge + log_width
