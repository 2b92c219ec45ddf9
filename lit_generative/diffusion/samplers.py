"""Samplers: from noise to images by a number of steps, each a look at an estimate of the clean image.

A sampler knows a function ``denoise(x_t (B, ...), t (B,)) -> x_0 estimate (B, ...)`` and a schedule, and no network;
with a learned variance the function returns (x_0, v), and only :class:`AncestralSampler` uses v. In a step, t is the
noise level where x is and s the lower one where it goes; ``t.alpha`` is alpha_t, ``s.sigma`` sigma_s.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from lit_generative.description import Described
from lit_generative.diffusion.runs import Denoise, Level, Predict, Run, levels_of, mix, raise_noise
from lit_generative.diffusion.schedules import Schedule
from lit_generative.diffusion.spacings import Spacing, UniformSpacing
from lit_generative.diffusion.thresholding import Thresholding

__all__ = ["DDIM", "AncestralSampler", "Sampler"]

Adjust = Callable[[Tensor, Level, Run], Tensor]


class Sampler(Described, ABC):
    """The loop over noise levels; a subclass writes one step.

    Args:
        steps: The number of steps down, N.
        spacing: The times they are taken at. None: :meth:`default_spacing`, equal steps in t unless a subclass differs.
        limit: What is done to each estimate of x_0. None: nothing.

    Raises:
        ValueError: If ``steps`` is below 1.
    """

    def __init__(self, steps: int = 50, spacing: Spacing | None = None, limit: Thresholding | None = None) -> None:
        if steps < 1:
            raise ValueError(f"steps={steps}: a sampler needs at least 1 step")
        self.steps, self.limit = steps, limit
        self.spacing = self.default_spacing() if spacing is None else spacing

    def default_spacing(self) -> Spacing:
        """Return the spacing that is used when none is given."""
        return UniformSpacing()

    @abstractmethod
    def step(self, x_t: Tensor, t: Level, s: Level, run: Run) -> Tensor:
        """Return x_s (B, ...) for ``x_t`` (B, ...), s being less noisy than t; at the last step s is the clean image.

        ``run.denoise(x_t, t)`` estimates x_0, ``run.noise(x_t)`` draws noise.
        """

    @property
    def network_evaluations(self) -> int:
        """How often ``sample`` calls ``denoise``."""
        return self.steps * self.spacing.passes

    def levels(self, schedule: Schedule, start: float = 1.0) -> list[Level]:
        """Return the noise levels on the way from time ``start`` to the clean image."""
        return levels_of(self.spacing.path(self.steps, schedule, start), schedule)

    def sample(
        self, denoise: Denoise | Predict, x_T: Tensor, schedule: Schedule, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return images (B, ...) made from ``x_T``, (B, ...), by what is documented at :meth:`trajectory`.

        ``x_T`` is standard normal noise times ``self.levels(schedule)[0].sigma``. There are no gradients.
        """
        return deque(self.trajectory(denoise, x_T, schedule, generator=generator), maxlen=1).pop()

    @torch.no_grad()
    def trajectory(
        self,
        denoise: Denoise | Predict,
        x_T: Tensor,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        start: float = 1.0,
        adjust: Adjust | None = None,
    ) -> Iterator[Tensor]:
        """Yield ``x_T`` and then x, (B, ...), after each step down; the last is the sample.

        Args:
            denoise: The estimate of x_0.
            x_T: Where to begin, (B, ...), at ``self.levels(schedule, start)[0]``.
            schedule: The one that the denoiser was trained with.
            generator: The source of all noise.
            start: The time to begin at, in (0, 1].
            adjust: Called with x, its level and the run at the beginning and after each step; its result is gone on
                with.
        """
        run = Run(denoise, self.limit, generator)
        levels = self.levels(schedule, start)
        x = x_T if adjust is None else adjust(x_T, levels[0], run)
        yield x
        for t, s in pairwise(levels):
            is_down = s.is_below(t)
            if is_down:
                x = self.step(x, t, s, run)
            else:
                x = raise_noise(x, t, s, run.noise(x), self.spacing.inflation)
                run.earlier = None  # there is no smooth path from there to here
            x = x if adjust is None else adjust(x, s, run)
            if is_down:
                yield x


class AncestralSampler(Sampler):
    """Draws from q(x_s | x_t, x_0) at the estimate of x_0 (Ho et al. 2020, algorithm 2), between any two times.

    With sigma_{t|s}^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, which is DDPM's beta_t, the mean is
    (alpha_t / alpha_s) (sigma_s / sigma_t)^2 x_t + alpha_s (sigma_{t|s} / sigma_t)^2 x_0 (Kingma et al. 2021, app. A).
    The variance is beta^v beta-tilde^(1 - v) with beta = sigma_{t|s}^2 and the posterior's beta-tilde =
    (sigma_{t|s} sigma_s / sigma_t)^2 (Nichol & Dhariwal 2021, eq. 15).

    Args:
        steps: The number of steps; T is DDPM itself.
        spacing: The times they are taken at; None: equal steps in t.
        limit: What is done to each estimate of x_0.
        v: 0 is the posterior's own variance, beta-tilde, right for data at a point; 1 is beta, right for white noise
            (Ho et al. 2020, section 3.2). With few steps 0 is much the better. None: what the network says of each
            pixel, see :class:`~lit_generative.diffusion.variance.LearnedVariance`.

    Raises:
        ValueError: If ``v`` is outside [0, 1]; in a step, if it is None and ``denoise`` returns none.
    """

    def __init__(
        self,
        steps: int = 1000,
        spacing: Spacing | None = None,
        limit: Thresholding | None = None,
        v: float | None = 0.0,
    ) -> None:
        super().__init__(steps, spacing, limit)
        if v is not None:
            check_unit("v", v)
        self.v = v

    def step(self, x_t: Tensor, t: Level, s: Level, run: Run) -> Tensor:
        """Draw x_s; the last step, to the clean image, returns the mean."""
        x0, v_of_pixels = run.estimate(x_t, t)
        v = v_of_pixels if self.v is None else self.v
        if v is None:
            raise ValueError("v=None: denoise must return (x_0, v) then; without a learned variance, take v=0 or v=1")
        beta = t.sigma**2 * (1 - s.noise_ratio(t) ** 2)
        shrink = (s.sigma / t.sigma) ** 2
        mean = mix(t.alpha / s.alpha * shrink, x_t, s.alpha * beta / t.sigma**2, x0)
        if s.sigma == 0:
            return mean
        std = (beta * shrink ** (1 - v)) ** 0.5
        return mean.addcmul_(run.noise(mean), std) if isinstance(std, Tensor) else with_noise(mean, std, run)


class DDIM(Sampler):
    """x_s = alpha_s x_0 + (sigma_s^2 - std^2)^(1/2) eps + std z (Song et al. 2021, eq. 12).

    eps = (x_t - alpha_t x_0) / sigma_t belongs to the estimate of x_0 after ``limit``, and std is eta times the
    posterior's standard deviation, (sigma_s / sigma_t) (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2)^(1/2) (eq. 16).

    Args:
        steps: The number of steps.
        spacing: The times they are taken at; None: equal steps in t.
        limit: What is done to each estimate of x_0.
        eta: 0 is deterministic, 1 is :class:`AncestralSampler` with v = 0.

    Raises:
        ValueError: If ``eta`` is outside [0, 1].
    """

    def __init__(
        self, steps: int = 50, spacing: Spacing | None = None, limit: Thresholding | None = None, eta: float = 0.0
    ) -> None:
        super().__init__(steps, spacing, limit)
        check_unit("eta", eta)
        self.eta = eta

    def step(self, x_t: Tensor, t: Level, s: Level, run: Run) -> Tensor:
        """Return x_s; at the last step the estimate of x_0."""
        x0 = run.denoise(x_t, t)
        share = self.eta**2 * (1 - s.noise_ratio(t) ** 2)  # of sigma_s^2: what is fresh noise
        eps_scale = s.sigma / t.sigma * (1 - share) ** 0.5
        return with_noise(mix(eps_scale, x_t, s.alpha - eps_scale * t.alpha, x0), s.sigma * share**0.5, run)


def with_noise(x: Tensor, std: float, run: Run) -> Tensor:
    """Add noise to ``x`` (B, ...) in place, if ``std`` is positive."""
    return x.add_(run.noise(x), alpha=std) if std > 0 else x


def check_unit(name: str, value: float) -> None:
    """Raise a ValueError if ``value`` is outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: it must be in [0, 1]; 0 adds the least noise, 1 the most")
