"""Spacings: at which times, in units of the schedule's t in [0, 1], a sampler evaluates the network.

A path is a list of times that begins with the noisiest and ends with 0, the clean image. It descends, except that a
spacing which wraps another may send it up again, that is, may have noise put back: EDM's churn, RePaint's jumps.
"""

from abc import ABC, abstractmethod
from math import inf, log

import torch
from torch import Tensor

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.diffusion.schedules import Schedule

__all__ = [
    "ChurnedSpacing",
    "KarrasSpacing",
    "LeadingSpacing",
    "LogSNRSpacing",
    "ResampledSpacing",
    "Spacing",
    "StraightOrKarrasSpacing",
    "TrailingSpacing",
    "UniformSpacing",
]


class Spacing(Described, ABC):
    """A choice of times for a number of steps.

    Attributes:
        passes: How often each step down is taken.
        puts_noise_back: Whether the path may go up again.
        inflation: The standard deviation of the noise that is put back on the way up; 1: that of the forward process.
    """

    passes: int = 1
    puts_noise_back: bool = False
    inflation: float = 1.0

    @abstractmethod
    def path(self, steps: int, schedule: Schedule, start: float = 1.0) -> list[float]:
        """Return the times, from the noisiest (at most ``start``) to 0: N + 1 for N steps, if it only descends."""


class UniformSpacing(Spacing):
    """Equal steps in t: start * i / N for i = N, ..., 0."""

    def path(self, steps: int, schedule: Schedule, start: float = 1.0) -> list[float]:
        """Return start, ..., start / N, 0."""
        return [start * (i / steps) for i in range(steps, -1, -1)]


class GridSpacing(Spacing, ABC):
    """Times among the multiples of 1/T, where a model of T discrete steps was trained; its step k is t = k / T.

    Args:
        T: The number of discrete steps, that of the schedule.
    """

    def __init__(self, T: int = 1000) -> None:
        check_count("T", T, hint="take the number of steps of the schedule")
        self.T = T

    def path(self, steps: int, schedule: Schedule, start: float = 1.0) -> list[float]:
        """Return k / T for the :meth:`indices` k, and 0.

        Raises:
            ValueError: If there are more steps than points of the grid up to ``start``.
        """
        points = round(start * self.T)
        if steps > points:
            raise ValueError(
                f"steps={steps}: the grid has {points} points up to t={start}; take fewer steps or UniformSpacing"
            )
        return [k / self.T for k in self.indices(steps, points)] + [0.0]

    @abstractmethod
    def indices(self, steps: int, points: int) -> list[int]:
        """Return N descending numbers from 1, ..., ``points``."""


class TrailingSpacing(GridSpacing):
    """The last point and every (T / N)-th below it, rounded (Lin et al. 2024, table 2, "trailing")."""

    def indices(self, steps: int, points: int) -> list[int]:
        """Return the rounded points i / N, i = N, ..., 1."""
        return [round(points * i / steps) for i in range(steps, 0, -1)]


class LeadingSpacing(GridSpacing):
    """The first point and every floor(T / N)-th above it (Lin et al. 2024, table 2, "leading").

    It begins below t = 1, although what it begins from is pure noise; it is here since published models use it.
    """

    def indices(self, steps: int, points: int) -> list[int]:
        """Return 1 + stride i, i = N - 1, ..., 0."""
        stride = points // steps
        return [1 + stride * i for i in range(steps - 1, -1, -1)]


class LevelSpacing(Spacing, ABC):
    """Equal steps in a function of the level l = sigma / alpha, from the schedule's end to ``sigma_min``, then to 0.

    Where the schedule goes on beyond ``sigma_max``, l is replaced by l / sqrt(1 + (l / sigma_max)^2) in that function,
    which is l below it and bounded above: between such levels next to nothing changes. To leave them out would begin
    with pure noise where a trace of the image should be, and change the brightness of all samples.

    Args:
        sigma_min: The lowest sigma / alpha before 0; where the schedule's at ``t_min`` is higher, that.
        sigma_max: The sigma / alpha up to which steps are equal in its function.
        t_min: The earliest time before 0, at least 0; models of 1,000 discrete steps know none before 1/1000.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, t_min: float = 1e-3) -> None:
        for name, sigma in {"sigma_min": sigma_min, "sigma_max": sigma_max}.items():
            check_range(name, sigma, above=0, hint="it is a noise level, sigma / alpha")
        if not sigma_min < sigma_max:
            raise ValueError(f"sigma_min={sigma_min}, sigma_max={sigma_max}: they must rise")
        check_range("t_min", t_min, at_least=0, below=1, hint="it is a time, such as 0.001")
        self.sigma_min, self.sigma_max, self.t_min = sigma_min, sigma_max, t_min

    @abstractmethod
    def log_levels(self, high: float, low: float, count: int) -> Tensor:
        """Return the logarithms of equally spaced levels from ``high`` to ``low``, (count,), float64."""

    def path(self, steps: int, schedule: Schedule, start: float = 1.0) -> list[float]:
        """Return the times of N levels, and 0."""
        lowest = min(self.t_min, start / 2)
        least, first = _log_levels(torch.tensor([lowest, start], dtype=torch.float64), schedule).exp().tolist()
        low = max(self.sigma_min, least)
        if low >= first:
            raise ValueError(f"sigma_min={self.sigma_min}: take one below {first:.3g}, the schedule's at t={start}")
        cap = self.sigma_max if first > 1.001 * self.sigma_max else inf  # the same level but for rounding
        log_levels = self.log_levels(_bounded(first, cap), _bounded(low, cap), steps)[1:]
        log_levels = -torch.log(torch.exp(-2 * log_levels) - cap**-2) / 2  # of l, from that of its bounded form
        return [start, *_times(log_levels, schedule, start), 0.0]


class KarrasSpacing(LevelSpacing):
    """Equal steps in (sigma / alpha)^(1/rho) (Karras et al. 2022, eq. 5), and from the last noise level to 0.

    Args:
        rho: 1 gives equal steps in sigma / alpha; the larger, the more of them are at low noise.
        sigma_min, sigma_max, t_min: See :class:`LevelSpacing`.
    """

    def __init__(
        self, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0, t_min: float = 1e-3
    ) -> None:
        super().__init__(sigma_min, sigma_max, t_min)
        check_range("rho", rho, above=0, hint="it is 7 in the paper")
        self.rho = rho

    def log_levels(self, high: float, low: float, count: int) -> Tensor:
        """Return rho times the logarithms of equally spaced roots."""
        roots = high ** (1 / self.rho), low ** (1 / self.rho)
        return self.rho * torch.linspace(*roots, count, dtype=torch.float64).log()


class LogSNRSpacing(LevelSpacing):
    """Equal steps in log(alpha^2 / sigma^2) (Lu et al. 2022, "DPM-Solver"), and from the last level to 0.

    Args:
        sigma_min, sigma_max, t_min: See :class:`LevelSpacing`.
    """

    def log_levels(self, high: float, low: float, count: int) -> Tensor:
        """Return equally spaced logarithms."""
        return torch.linspace(log(high), log(low), count, dtype=torch.float64)


class StraightOrKarrasSpacing(Spacing):
    """Equal steps in t on a straight path, alpha + sigma = 1 (Liu et al. 2022), and on others :class:`KarrasSpacing`.

    On the straight path the ODE's slope hardly changes by t.
    """

    def path(self, steps: int, schedule: Schedule, start: float = 1.0) -> list[float]:
        """Return the times of whichever it is."""
        spacing = UniformSpacing() if schedule.is_straight else KarrasSpacing()
        return spacing.path(steps, schedule, start)


class ChurnedSpacing(Spacing):
    """Noise put back before each step, from sigma to sigma * (1 + gamma) (Karras et al. 2022, algorithm 2).

    Args:
        spacing: The levels to step down to.
        amount: S_churn, not negative: gamma is amount / N, at most sqrt(2) - 1.
        lowest: S_tmin, the lowest sigma / alpha at which there is churn.
        highest: S_tmax, the highest; where sigma * (1 + gamma) is noisier than the start, there is none either.
        inflation: S_noise, the standard deviation of the noise that is put back; not negative.

    Raises:
        ValueError: If ``spacing`` puts noise back already.
    """

    def __init__(
        self,
        spacing: Spacing,
        amount: float = 40.0,
        lowest: float = 0.05,
        highest: float = 50.0,
        inflation: float = 1.003,
    ) -> None:
        check_range("amount", amount, at_least=0, hint="0 is no churn")
        check_range("lowest", lowest, at_least=0, hint="it is a noise level, sigma / alpha")
        check_range("highest", highest, above=lowest, hint="it is a noise level above lowest")
        check_range("inflation", inflation, at_least=0, hint="1 is the noise of the forward process")
        check_descends(spacing)
        self.spacing, self.amount, self.lowest, self.highest = spacing, amount, lowest, highest
        self.inflation, self.puts_noise_back = inflation, amount > 0

    def path(self, steps: int, schedule: Schedule, start: float = 1.0) -> list[float]:
        """Return the times: N, up to N more above them, and 0."""
        times = torch.tensor(self.spacing.path(steps, schedule, start), dtype=torch.float64)[:-1]
        levels = _log_levels(times, schedule)
        gamma = min(self.amount / steps, 2**0.5 - 1)
        raised = levels + log(1 + gamma)
        top = float(_log_levels(times.new_tensor([start]), schedule))
        is_churned = (levels.exp() >= self.lowest) & (levels.exp() <= self.highest) & (raised <= top) & (gamma > 0)
        before = _times(raised, schedule, start)
        path = [[t, t_hat] if up else [t] for t, t_hat, up in zip(times.tolist(), before, is_churned, strict=True)]
        return [*sum(path, []), 0.0]  # noqa: RUF017


class ResampledSpacing(Spacing):
    """Blocks of steps taken several times, with the noise put back in between (Lugmayr et al. 2022, section 4.2).

    In inpainting it gives the new part of an image the time to agree with the known part.

    Args:
        spacing: The levels to step down to.
        jump: The number of steps in a block.
        passes: How often each block is taken; 1 is no resampling.

    Raises:
        ValueError: If ``spacing`` puts noise back already.
    """

    def __init__(self, spacing: Spacing, jump: int = 10, passes: int = 10) -> None:
        check_count("jump", jump)
        check_count("passes", passes, hint="1 is no resampling")
        check_descends(spacing)
        self.spacing, self.jump, self.passes, self.puts_noise_back = spacing, jump, passes, passes > 1

    def path(self, steps: int, schedule: Schedule, start: float = 1.0) -> list[float]:
        """Return the times of ``passes`` N steps down, and of the jumps up."""
        times = self.spacing.path(steps, schedule, start)
        path = times[:1]
        for first in range(0, steps, self.jump):
            block = times[first : first + self.jump + 1]
            path += block[1:] + block * (self.passes - 1)
        return path


def _bounded(level: float, cap: float) -> float:
    """Return l / sqrt(1 + (l / cap)^2)."""
    return (level**-2 + cap**-2) ** -0.5


def check_descends(spacing: Spacing) -> None:
    """Refuse a spacing that puts noise back where a plain one is needed."""
    if spacing.puts_noise_back:
        raise ValueError(f"spacing={type(spacing).__name__}: it puts noise back; take a plain one here")


def _log_levels(times: Tensor, schedule: Schedule) -> Tensor:
    """Return log(sigma / alpha) at ``times`` (n,), float64; infinite where alpha is 0."""
    return schedule.exact_log_snr(times) / -2


def _times(log_levels: Tensor, schedule: Schedule, start: float) -> list[float]:
    """Return the times in [0, start] at which log(sigma / alpha) is ``log_levels`` (n,)."""
    return schedule.time_of_log_snr(-2 * log_levels).double().clamp(max=start).tolist()
