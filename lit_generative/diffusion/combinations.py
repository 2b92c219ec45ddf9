"""How guidance makes one estimate of two: what is done against the colours and contrasts that grow with its scale."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from lit_generative.checks import check_range
from lit_generative.description import Described
from lit_generative.diffusion.schedules import per_image

__all__ = ["Combination", "ProjectedCombination", "RescaledCombination"]

Combine = Callable[[Tensor, Tensor, float | Tensor, Tensor], Tensor]


class Combination(Described, ABC):
    """A map of the model's own estimate c of x_0 and a worse one u to the guided one; write :meth:`begin`."""

    @abstractmethod
    def begin(self) -> Combine:
        """Return the map of one run of a sampler, with a memory of its own if it has any.

        It takes c and u (B, ...), the scale, one number or (B, 1, ...), and the times (B,), and returns (B, ...).
        """


class RescaledCombination(Combination):
    """g = u + scale (c - u) brought back to the standard deviation of c, in part (Lin et al. 2024, eq. 15 and 16).

    It is phi std(c) / std(g) g + (1 - phi) g, with each image's own std. Theirs are estimates of v, these are of x_0,
    whose contrast is what grows.

    Args:
        phi: 0 is g, 1 has the contrast of c; theirs is 0.7.
    """

    def __init__(self, phi: float = 0.7) -> None:
        check_range("phi", phi, at_least=0, at_most=1, hint="theirs is 0.7")
        self.phi = phi

    def begin(self) -> Combine:
        """Return the rescaled extrapolation."""

        def combine(better: Tensor, worse: Tensor, scale: float | Tensor, t: Tensor) -> Tensor:
            guided = torch.lerp(worse, better, scale)
            spread, wanted = (x.flatten(1).std(1) for x in (guided, better))
            ratio = torch.where(spread > 0, wanted / spread, 1.0)  # a plain image has no contrast
            return guided * per_image(self.phi * ratio + 1 - self.phi, guided)

        return combine


class ProjectedCombination(Combination):
    """Adaptive projected guidance (Sadat et al. 2024): c + (scale - 1) d, d being c - u without its part along c.

    Before, c - u is averaged with ``momentum`` over the steps, m <- c - u + momentum m, and
    shortened to at most ``norm_threshold``. It is the part along c that saturates colours, and the part across it that
    makes better images; so d = across + eta along.

    Args:
        eta: The share of the part along c that is kept, at least 0; with 1, no threshold and no momentum it is
            u + scale (c - u).
        norm_threshold: r, positive, in units of the images' Euclidean norm; theirs is 2.5 to 15 for latents of 4 x 64 x
            64. None: no threshold.
        momentum: Negative repels from where the last steps went; above -1 and below 1. Theirs is -0.5 to -0.75.
    """

    def __init__(self, eta: float = 0.0, norm_threshold: float | None = None, momentum: float = -0.5) -> None:
        check_range("eta", eta, at_least=0, hint="theirs is 0")
        check_range("norm_threshold", norm_threshold, above=0, hint="None is no threshold")
        check_range("momentum", momentum, above=-1, below=1, hint="theirs is -0.5 to -0.75")
        self.eta, self.norm_threshold, self.momentum = eta, norm_threshold, momentum

    def begin(self) -> Combine:
        """Return the projection, which remembers the differences of this run."""
        memory: tuple[float, Tensor] | None = None

        def combine(better: Tensor, worse: Tensor, scale: float | Tensor, t: Tensor) -> Tensor:
            nonlocal memory
            difference, time = better - worse, t.max().item()
            goes_on = memory is not None and memory[0] >= time and memory[1].shape == difference.shape
            if memory is not None and goes_on and self.momentum:  # not where noise was put back
                difference = difference + self.momentum * memory[1]
            memory = time, difference
            return better + (scale - 1) * self._projected(difference, better)

        return combine

    def _projected(self, difference: Tensor, better: Tensor) -> Tensor:
        flat, along = difference.flatten(1).double(), better.flatten(1).double()
        if self.norm_threshold is not None:
            flat = flat * (self.norm_threshold / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        along = torch.nn.functional.normalize(along, dim=1)
        parallel = (flat * along).sum(1, keepdim=True) * along
        return (flat - (1 - self.eta) * parallel).view_as(difference).to(difference.dtype)
