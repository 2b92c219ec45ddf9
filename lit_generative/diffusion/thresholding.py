"""Limits on a sampler's estimate of the clean image: data are in [-1, 1], an estimate from noise need not be."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lit_generative.description import Described

__all__ = ["DynamicThresholding", "StaticThresholding", "Thresholding"]


class Thresholding(Described, ABC):
    """A map of an estimate of x_0 to an admissible one of the same shape, applied after every network evaluation."""

    @abstractmethod
    def __call__(self, x0: Tensor) -> Tensor:
        """Return the admissible estimate (B, ...) for ``x0`` (B, ...)."""


class StaticThresholding(Thresholding):
    """Clamp every value to [-bound, bound], as Ho et al. 2020 do.

    Args:
        bound: The largest absolute value, in units of x; 1 for images in [-1, 1].

    Raises:
        ValueError: If ``bound`` is not positive.
    """

    def __init__(self, bound: float = 1.0) -> None:
        if bound <= 0:
            raise ValueError(f"bound={bound}: the largest absolute value must be positive, 1 for images in [-1, 1]")
        self.bound = bound

    def __call__(self, x0: Tensor) -> Tensor:
        """Return ``x0`` clamped, (B, ...)."""
        return x0.clamp(-self.bound, self.bound)


class DynamicThresholding(Thresholding):
    """Clamp to [-s, s] and divide by s, a quantile of the image's own |x_0| (Saharia et al. 2022, section 2.3).

    Where guidance drives many pixels to saturation, this rescales the image instead of flattening it. An image that
    stays within [-1, 1] is left as it is, since s is at least 1.

    Args:
        quantile: Which quantile of an image's absolute values s is, in (0, 1].

    Raises:
        ValueError: If ``quantile`` is outside (0, 1].
    """

    def __init__(self, quantile: float = 0.995) -> None:
        if not 0 < quantile <= 1:
            raise ValueError(f"quantile={quantile}: it must be in (0, 1], for instance 0.995")
        self.quantile = quantile

    def __call__(self, x0: Tensor) -> Tensor:
        """Return ``x0`` (B, ...) in [-1, 1]."""
        magnitudes = x0.abs().flatten(1).to(torch.promote_types(x0.dtype, torch.float32))
        s = magnitudes.quantile(self.quantile, dim=1).clamp(min=1).to(x0.dtype)
        s = s.view(-1, *[1] * (x0.ndim - 1))
        return x0.clamp(-s, s) / s
