"""What the steps of a sampler work with: noise levels as plain numbers, and one run's denoiser, noise and memory."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_generative.diffusion.schedules import Schedule
from lit_generative.diffusion.thresholding import Thresholding

__all__ = ["Denoise", "Level", "Predict", "Run", "levels_of", "mix", "raise_noise"]

Denoise = Callable[[Tensor, Tensor], Tensor]
"""A map of x_t (B, ...) and t (B,) to an estimate of x_0 (B, ...)."""

Predict = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""A map of x_t (B, ...) and t (B,) to an estimate of x_0 and, where the variance is learned, v, both (B, ...).

v is where on a logarithmic scale the variance of a step lies: 0 is the least, beta-tilde, 1 the most, beta (see
:class:`~lit_generative.diffusion.samplers.AncestralSampler`); a network may go a little beyond.
"""


class Level(NamedTuple):
    """A time and what the schedule says of it: x_t = alpha x_0 + sigma eps.

    These are Python floats, so that a step's coefficients cost no tensor operation and no wait for a device.
    """

    t: float
    alpha: float
    sigma: float

    def is_below(self, other: "Level") -> bool:
        """Whether there is less noise here, that is, a lower sigma / alpha, than at ``other``."""
        return self.sigma * other.alpha < other.sigma * self.alpha

    def noise_ratio(self, other: "Level") -> float:
        """Return sigma / alpha here over that at the noisier ``other``: e^-h, h the step in log(alpha / sigma)."""
        return self.sigma * other.alpha / (self.alpha * other.sigma)


def levels_of(times: list[float], schedule: Schedule) -> list[Level]:
    """Return the levels at ``times``; t = 0 is the clean image, alpha = 1 and sigma = 0, on any schedule."""
    alpha, sigma = schedule(torch.tensor(times, dtype=torch.float64))
    levels = zip(times, alpha.tolist(), sigma.tolist(), strict=True)
    return [Level(t, alpha_t, sigma_t) if t else Level(0.0, 1.0, 0.0) for t, alpha_t, sigma_t in levels]


class Run:
    """One run of a sampler: a sampler itself keeps no state, so that it may be used twice at once.

    Args:
        denoise: The estimate of x_0, with or without v.
        limit: What is applied to the estimate, or None.
        generator: The source of all noise; None is torch's own. It may be on another device than the images.

    Attributes:
        earlier: For a multistep solver: the level before this one, and the estimate of x_0 there.
    """

    def __init__(
        self, denoise: Denoise | Predict, limit: Thresholding | None, generator: torch.Generator | None
    ) -> None:
        self._denoise, self._limit, self._generator = denoise, limit, generator
        self.earlier: tuple[Level, Tensor] | None = None

    def denoise(self, x_t: Tensor, t: Level | Tensor) -> Tensor:
        """Return the limited estimate of x_0, (B, ...), for ``x_t`` (B, ...)."""
        return self.estimate(x_t, t)[0]

    def estimate(self, x_t: Tensor, t: Level | Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the limited estimate of x_0 and v, if there is one, for ``x_t``, all (B, ...).

        ``t`` is the level of all images, or the time of each, (B,).
        """
        if isinstance(t, Level):
            dtype = torch.promote_types(x_t.dtype, torch.float32)
            t = torch.full((len(x_t),), t.t, dtype=dtype, device=x_t.device)
        estimate = self._denoise(x_t, t)
        x0, v = estimate if isinstance(estimate, tuple) else (estimate, None)
        return x0 if self._limit is None else self._limit(x0), v

    def noise(self, x: Tensor) -> Tensor:
        """Draw standard normal noise like ``x`` (B, ...)."""
        return self._drawn(torch.randn, x)

    def uniform(self, x: Tensor) -> Tensor:
        """Draw numbers from U[0, 1) like ``x`` (B, ...)."""
        return self._drawn(torch.rand, x)

    def _drawn(self, draw: Callable[..., Tensor], x: Tensor) -> Tensor:
        device = x.device if self._generator is None else self._generator.device
        return draw(x.shape, generator=self._generator, dtype=x.dtype, device=device).to(x.device)


def mix(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """Return a * x + b * y in two passes over memory rather than three."""
    return torch.add(a * x, y, alpha=b)


def raise_noise(x_t: Tensor, t: Level, s: Level, noise: Tensor, inflation: float = 1.0) -> Tensor:
    """Take ``x_t`` from level t to the noisier s by the forward process, q(x_s | x_t).

    With alpha_{s|t} = alpha_s / alpha_t it is alpha_{s|t} x_t + (sigma_s^2 - alpha_{s|t}^2 sigma_t^2)^(1/2) noise
    (Kingma et al. 2021, appendix A); ``inflation`` multiplies the noise.
    """
    alpha_st = s.alpha / t.alpha
    variance = max(s.sigma**2 - (alpha_st * t.sigma) ** 2, 0.0)
    return mix(alpha_st, x_t, inflation * variance**0.5, noise)
