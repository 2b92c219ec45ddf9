"""Likelihoods that are densities with a location and a scale: Gaussian and Laplace, the scale one or many."""

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, distributions, nn
from torch.distributions import Distribution, Normal

from lit_generative.checks import check_range
from lit_generative.eight_bit import HALF_BIN
from lit_generative.numerics import at_least_single, in_double
from lit_generative.vae.likelihoods.base import ImageDistribution, Likelihood, wrong_channels

__all__ = [
    "GaussianLikelihood",
    "GaussianPerImageLikelihood",
    "GaussianPerPixelLikelihood",
    "LaplaceLikelihood",
    "LocationScale",
]


class LocationScale(Likelihood):
    """A density f((x - loc) / scale) / scale of each pixel, f symmetric, on all real numbers; by default f is normal.

    Attributes:
        family: Makes the distribution from loc and scale.
    """

    has_mass = True

    family: ClassVar[type[Normal | distributions.Laplace]] = Normal

    def log_cdf(self, x: Tensor) -> Tensor:
        """Return the logarithm of the CDF of f, which must be accurate far out on the left."""
        return torch.special.log_ndtr(x)

    @abstractmethod
    def parameters_of(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return loc (B, C, H, W) and scale, which broadcasts with it, for decoder outputs in float32."""

    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z)."""
        loc, scale = self.parameters_of(at_least_single(decoded))
        return ImageDistribution(self.family(loc, scale, validate_args=False), self)

    def log_mass(self, p: Distribution, x: Tensor) -> Tensor:
        """Return log P(x), (B,), in nats, of 8-bit images: each pixel's density integrated over its bin.

        f is symmetric, so a bin at the right of loc has the mass of its mirror image at the left, where F, the CDF,
        is small and its logarithm accurate: log(F(b) - F(a)) = log F(b) + log(1 - exp(log F(a) - log F(b))).
        """
        pixels = p.base_dist  # type: ignore[attr-defined]
        value, loc, scale = in_double(x), in_double(pixels.loc), in_double(pixels.scale)
        centred, is_outermost = value - loc, value.abs() > 1 - HALF_BIN
        left = -centred.abs()
        upper, lower = self.log_cdf((left + HALF_BIN) / scale), self.log_cdf((left - HALF_BIN) / scale)
        inner = upper + torch.log(-torch.expm1(lower - upper))
        # black (x = -1) has the tail to the left, white that to the right
        tail = self.log_cdf((HALF_BIN - value.sign() * centred) / scale)
        return tail.where(is_outermost, inner).flatten(-3).sum(-1).to(x)


class GaussianLikelihood(LocationScale):
    """N(x; decoded, scale^2 I), a density over real-valued images (Kingma & Welling 2014, appendix C.2).

    Args:
        scale: The standard deviation, in units of x in [-1, 1]. None: one learned scale (sigma-VAE, Rybkin et al.
            2021), which sets the balance of reconstruction and KL by itself.
    """

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self.log_scale = _log_scale(scale)

    def parameters_of(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means ``decoded`` (B, C, H, W) and the one scale."""
        return decoded, self.log_scale.exp()


class LaplaceLikelihood(LocationScale):
    """exp(-|x - decoded| / scale) / (2 scale) for each pixel: absolute errors, which make sharper images than squares.

    Args:
        scale: The mean absolute deviation, in units of x in [-1, 1]; None: one learned scale.
    """

    family = distributions.Laplace

    def __init__(self, scale: float | None = None) -> None:
        super().__init__()
        self.log_scale = _log_scale(scale)

    def parameters_of(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return the medians ``decoded`` (B, C, H, W) and the one scale."""
        return decoded, self.log_scale.exp()

    def log_cdf(self, x: Tensor) -> Tensor:
        """Return log(exp(x) / 2) where x < 0, else log(1 - exp(-x) / 2)."""
        return torch.where(x < 0, x - math.log(2), torch.log1p(-torch.exp(-x.clamp_min(0)) / 2))


class GaussianPerPixelLikelihood(LocationScale):
    """N(x; mean, diag(scale^2)) with a scale for each pixel and channel from the decoder, which puts out 2 C channels.

    Scales are kept between bounds. Without a lower one the density of pixels that never change, such as a black
    margin, grows without limit, and training with it breaks down.

    Args:
        lowest: The least scale, in units of x in [-1, 1]; about the width of a level, 2/255, is as fine as images are.
        highest: The greatest. Training starts near the geometric mean of the two.
    """

    def __init__(self, lowest: float = 0.01, highest: float = 1.0) -> None:
        super().__init__()
        check_range("highest", highest, above=0, hint="it is the greatest scale, such as 1")
        check_range("lowest", lowest, above=0, below=highest)
        self.lowest, self.highest = lowest, highest

    def channels(self, channels: int) -> int:
        """Return 2 C: means, then scales."""
        return 2 * channels

    def parameters_of(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and scales, (B, C, H, W) each, of decoder outputs (B, 2 C, H, W)."""
        if decoded.shape[-3] % 2:
            raise wrong_channels(self, decoded.shape[-3])
        mean, bounded = decoded.chunk(2, dim=-3)
        return mean, _between(bounded, self.lowest, self.highest)


class GaussianPerImageLikelihood(LocationScale):
    """N(x; mean, scale^2 I) with a scale for each image from the decoder, which puts out C + 1 channels.

    The scale's logarithm, before it is brought between the bounds, is the mean of the last channel.

    Args:
        lowest: The least scale, in units of x in [-1, 1].
        highest: The greatest. Training starts near the geometric mean of the two.
    """

    def __init__(self, lowest: float = 0.01, highest: float = 1.0) -> None:
        super().__init__()
        check_range("highest", highest, above=0, hint="it is the greatest scale, such as 1")
        check_range("lowest", lowest, above=0, below=highest)
        self.lowest, self.highest = lowest, highest

    def channels(self, channels: int) -> int:
        """Return C + 1: means, then what is averaged into the scale."""
        return channels + 1

    def parameters_of(self, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """Return means (B, C, H, W) and scales (B, 1, 1, 1) of decoder outputs (B, C + 1, H, W)."""
        if decoded.shape[-3] < 2:
            raise wrong_channels(self, decoded.shape[-3])
        mean, last = decoded[..., :-1, :, :], decoded[..., -1:, :, :]
        return mean, _between(last.mean((-1, -2), keepdim=True), self.lowest, self.highest)


def _log_scale(scale: float | None) -> Tensor:
    """Return the logarithm of a scale: a parameter if ``scale`` is None, else a buffer."""
    check_range("scale", scale, above=0, hint="null makes it a learned one")
    log_scale = torch.tensor(math.log(scale or 0.3))
    return nn.Parameter(log_scale) if scale is None else nn.Buffer(log_scale)


def _between(x: Tensor, lowest: float, highest: float) -> Tensor:
    """Map real numbers to scales: the logarithm is the sigmoid of x between the bounds' logarithms."""
    return torch.exp(math.log(lowest) + math.log(highest / lowest) * torch.sigmoid(x))
