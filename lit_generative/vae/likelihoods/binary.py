"""Likelihoods with one parameter a pixel that is a logit: of binary images, and its continuous relative."""

from math import log
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from lit_generative.eight_bit import HALF_BIN
from lit_generative.numerics import at_least_single, in_double
from lit_generative.vae.likelihoods.base import ImageDistribution, Likelihood

__all__ = ["BernoulliImages", "BernoulliLikelihood", "ContinuousBernoulliImages", "ContinuousBernoulliLikelihood"]


class BernoulliLikelihood(Likelihood):
    """Each pixel is white with probability sigmoid(decoded) (Kingma & Welling 2014, appendix C.1).

    It is a likelihood of binary images; of gray ones, ``log_prob`` is the cross-entropy of (x + 1) / 2, in nats, and no
    probability of them is defined.

    Args:
        binary: Whether the images are binary (``binarise`` of the data module makes them so); then the likelihood of
            test images is defined.
    """

    def __init__(self, binary: bool = False) -> None:
        super().__init__()
        self.has_mass = binary

    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) with logits ``decoded``, (B, C, H, W)."""
        return ImageDistribution(BernoulliImages(at_least_single(decoded)), self)

    def log_mass(self, p: Distribution, x: Tensor) -> Tensor:
        """Return log P(x), (B,), in nats, of binary images.

        Raises:
            ValueError: If ``x`` has a pixel that is neither -1 nor 1.
        """
        if not (x.abs() == 1).all():
            raise ValueError("x has gray pixels, whose probability Bernoulli does not define; binarise the data")
        return p.log_prob(x)


class ContinuousBernoulliLikelihood(Likelihood):
    """p(u) proportional to lambda^u (1 - lambda)^(1 - u) for u = (x + 1) / 2 in [0, 1], lambda = sigmoid(decoded).

    It is the density of gray images that the Bernoulli's cross-entropy is not (Loaiza-Ganem & Cunningham 2019, eq. 2).
    """

    has_mass = True

    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) with logits ``decoded``, (B, C, H, W)."""
        return ImageDistribution(ContinuousBernoulliImages(at_least_single(decoded)), self)

    def log_mass(self, p: Distribution, x: Tensor) -> Tensor:
        """Return log P(x), (B,), in nats, of 8-bit images; black and white have half bins, since p ends at -1 and 1."""
        logits: Tensor = p.base_dist.logits  # type: ignore[attr-defined]
        pixels = ContinuousBernoulliImages(in_double(logits)).log_mass(in_double(x))
        return pixels.flatten(-3).sum(-1).to(x)


class LogitImages(Distribution):
    """Independent pixels, each with one logit."""

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012
    has_rsample = False

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)


class BernoulliImages(LogitImages):
    """Independent pixels, 1 with probability sigmoid(logits), else -1."""

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


class ContinuousBernoulliImages(LogitImages):
    """Independent pixels of density t exp(t x) / (2 sinh t) on [-1, 1], where t = logits / 2.

    That is the continuous Bernoulli's density of u, halved because u = (x + 1) / 2, in a form without poles: its
    normaliser is sinh(t) / t, which is 1 where the usual one is 0/0 (lambda = 1/2).
    """

    @property
    def mean(self) -> Tensor:
        """E[x] in [-1, 1]: coth t - 1/t, the derivative of log(sinh(t) / t)."""
        t = self.logits / 2
        far = t.where(t.abs() > 0.3, 1)
        series = t * (1 / 3 - t**2 * (1 / 45 - t**2 * (2 / 945 - t**2 / 4725)))
        return (1 / far.tanh() - 1 / far).where(t.abs() > 0.3, series)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw pixels in [-1, 1] by inverting the CDF, (exp(t x) - exp(-t)) / (2 sinh t)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, device=self.logits.device, dtype=self.logits.dtype).clamp_(1e-7)
        t = (self.logits / 2).abs().clamp_min(1e-6)
        x = 1 + torch.log1p((1 - u) * torch.expm1(-2 * t)) / t
        return x.clamp(-1, 1) * self.logits.sign().where(self.logits != 0, 1)  # p(x; -t) = p(-x; t)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of each pixel of ``value`` in [-1, 1], in nats."""
        t = self.logits / 2
        return t * value - log(2) - _log_sinhc(t)

    def log_mass(self, value: Tensor) -> Tensor:
        """Return the log-probability of each pixel's bin, in nats.

        Between edges a < b it is log((exp(t b) - exp(t a)) / (2 sinh t)), where the numerator is
        2 exp(t (a + b) / 2) sinh(t (b - a) / 2).
        """
        a, b = (value - HALF_BIN).clamp_min(-1), (value + HALF_BIN).clamp_max(1)
        t, half_width = self.logits / 2, (b - a) / 2
        return t * (a + b) / 2 + torch.log(half_width) + _log_sinhc(t * half_width) - _log_sinhc(t)


def _log_sinhc(t: Tensor) -> Tensor:
    """Return log(sinh(t) / t), finite for any t, and so is its gradient."""
    far = t.abs().where(t.abs() > 0.3, 1)  # nothing infinite is computed, even where it is not used
    series = t**2 * (1 / 6 - t**2 * (1 / 180 - t**2 * (1 / 2835 - t**2 / 37800)))
    return (far + torch.log(-torch.expm1(-2 * far) / (2 * far))).where(t.abs() > 0.3, series)
