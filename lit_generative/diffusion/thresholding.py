"""Thresholding of estimates of the clean image: data are in [-1, 1], an estimate from noise need not be."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lit_generative.checks import check_range
from lit_generative.description import Described
from lit_generative.diffusion.denoiser import Denoiser, Estimate
from lit_generative.diffusion.schedules import per_image

__all__ = ["DynamicThresholding", "StaticThresholding", "Thresholding"]


class Thresholding(Described, ABC):
    """A map of estimates of x_0 to admissible ones of the same shape, (B, ...)."""

    @abstractmethod
    def __call__(self, x0: Tensor) -> Tensor:
        """Return the admissible estimates for ``x0``."""

    def wrap(self, denoise: Denoiser) -> Denoiser:
        """Return ``denoise`` with its estimates thresholded."""

        def thresholded(x_t: Tensor, t: Tensor) -> Estimate:
            x0, v = denoise(x_t, t)
            return Estimate(self(x0), v)

        return thresholded


class StaticThresholding(Thresholding):
    """Clamp every value to [-bound, bound], as Ho et al. 2020 do.

    Args:
        bound: The largest absolute value, positive.
    """

    def __init__(self, bound: float = 1.0) -> None:
        check_range("bound", bound, above=0, hint="images are in [-1, 1]")
        self.bound = bound

    def __call__(self, x0: Tensor) -> Tensor:
        """x_0 in [-bound, bound]."""
        return x0.clamp(-self.bound, self.bound)


class DynamicThresholding(Thresholding):
    """Clamp to [-s, s] and divide by s, a quantile of the image's own |x_0| (Saharia et al. 2022, section 2.3).

    Where guidance drives many pixels to saturation, this rescales the image instead of flattening it. An image within
    [-1, 1] is left as it is, since s is at least 1.

    Args:
        quantile: Which quantile s is, in (0, 1].
    """

    def __init__(self, quantile: float = 0.995) -> None:
        check_range("quantile", quantile, above=0, at_most=1, hint="theirs is 0.995")
        self.quantile = quantile

    def __call__(self, x0: Tensor) -> Tensor:
        """x_0 in [-1, 1]."""
        magnitudes = x0.abs().flatten(1).to(torch.promote_types(x0.dtype, torch.float32))
        s = per_image(magnitudes.quantile(self.quantile, dim=1).clamp(min=1).to(x0.dtype), x0)
        return x0.clamp(-s, s) / s
