"""What samplers, guidance and likelihoods know of a model: a denoiser, and the estimate that it returns."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

__all__ = ["Denoiser", "Estimate"]


class Estimate(NamedTuple):
    """What a denoiser makes of noisy images.

    Attributes:
        x0: The estimate of x_0, (B, ...).
        v: Where the variance of a step lies on a logarithmic scale, (B, ...): 0 is beta-tilde, 1 is beta (see
            :class:`~lit_generative.diffusion.samplers.AncestralSampler`), and a network may go a little beyond. None:
            it is not learned.
    """

    x0: Tensor
    v: Tensor | None = None


Denoiser = Callable[[Tensor, Tensor], Estimate]
"""A map of noisy images x_t (B, ...) and their times t (B,) to the estimate of what they were."""
