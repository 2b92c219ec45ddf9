"""Noise schedules: how much image, alpha_t, and how much noise, sigma_t, there is in x_t = alpha_t x_0 + sigma_t eps.

Time t runs from 0, almost clean data, to 1, almost pure noise; times outside [0, 1] count as the nearer end. A
schedule is its log-SNR, lambda(t) = 2 (log alpha_t - log sigma_t), which falls strictly, and a *path*: which alpha and
sigma have that ratio (alpha^2 + sigma^2 = 1 unless a class says otherwise). Neither alpha nor sigma is 0, so that noise
and image can always be had from each other; where the papers' formulas would make one 0, the schedule stops just short
of it, at :attr:`Schedule.ends`. The exception is :class:`ZeroTerminalSNRSchedule`, whose alpha is 0 at t = 1. All is
computed in float64 and returned in float32.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.numerics import in_double

__all__ = [
    "CosineSchedule",
    "EDMSchedule",
    "LinearBetaSchedule",
    "NoiseLevel",
    "RectifiedFlowSchedule",
    "Schedule",
    "ShiftedSchedule",
    "SigmoidSchedule",
    "ZeroTerminalSNRSchedule",
    "per_image",
    "step_at",
]

LOWEST_LOG_SNR = -60.0
"""What stands for minus infinity where a finite log-SNR is needed."""

LEAST_ALPHA = math.exp(LOWEST_LOG_SNR / 2)
"""The alpha there, 1e-13, which stands for 0 where one divides by it."""


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """Shape one number per image of ``x`` (B, C, H, W), (B,), or one for all, (), as (B, 1, 1, 1) or (1, 1, 1, 1)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def step_at(t: Tensor, num_steps: int) -> Tensor:
    """Return the step i = 1, ..., T of a chain of ``num_steps`` that leads over ``t``, (i - 1) / T < t <= i / T.

    The float64 result has the shape of ``t`` (0, 1]. A time counts as i / T if it is that but for float32's rounding.
    """
    return ((in_double(t) - 1e-6) * num_steps).ceil().clamp(1, num_steps)


class NoiseLevel(NamedTuple):
    """A time and what a schedule says of it: x_t = alpha x_0 + sigma eps.

    These are Python floats, so that a sampler's coefficients cost no tensor operation and no wait for a device.
    """

    t: float
    alpha: float
    sigma: float

    def is_below(self, other: "NoiseLevel") -> bool:
        """Whether there is less noise here, that is, a lower sigma / alpha, than at ``other``."""
        return self.sigma * other.alpha < other.sigma * self.alpha

    def noise_ratio(self, other: "NoiseLevel") -> float:
        """Return sigma / alpha here over that at the noisier ``other``: e^-h, h the step in log(alpha / sigma)."""
        return self.sigma * other.alpha / (self.alpha * other.sigma) if self.alpha else math.inf


class Schedule(Described, ABC):
    """A map from time to alpha_t and sigma_t; a subclass writes :meth:`formula`.

    Attributes:
        variance_preserving: Whether alpha_t^2 + sigma_t^2 = 1, so that data of variance 1 keep it.
        is_straight: Whether alpha_t + sigma_t = 1.
        ends_in_noise: Whether alpha is 0 at t = 1.
        ends: The first and last time that are told apart; times beyond are taken for these.
    """

    variance_preserving: bool = True
    is_straight: bool = False
    ends_in_noise: bool = False
    ends: tuple[float, float] = (0.0, 1.0)

    @abstractmethod
    def formula(self, t: Tensor) -> Tensor:
        """Return lambda(t) for float64 times within :attr:`ends`, as float64 of the same shape."""

    def path(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """Return the (alpha, sigma) with this log-SNR, of the same shape and type.

        alpha^2 = sigmoid(lambda) and sigma^2 = sigmoid(-lambda) (Kingma et al. 2021 section 3.2), neither as 1 minus
        the other, so that both are exact where they are small.
        """
        return log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return alpha_t and sigma_t, both float32, of the shape of ``t``."""
        alpha_t, sigma_t = self.path(self.exact_log_snr(t))
        return alpha_t.float().to(t.device), sigma_t.float().to(t.device)

    def levels(self, times: list[float]) -> list[NoiseLevel]:
        """Return the levels at ``times``; t = 0 is the clean image, alpha = 1 and sigma = 0, on any schedule."""
        alpha, sigma = self(torch.tensor(times, dtype=torch.float64))
        levels = zip(times, alpha.tolist(), sigma.tolist(), strict=True)
        return [NoiseLevel(t, alpha_t, sigma_t) if t else NoiseLevel(0.0, 1.0, 0.0) for t, alpha_t, sigma_t in levels]

    def log_snr(self, t: Tensor) -> Tensor:
        """Return lambda(t) = 2 (log alpha_t - log sigma_t), float32 and finite, of the shape of ``t``."""
        return self.exact_log_snr(t).clamp(min=LOWEST_LOG_SNR).float().to(t.device)

    def time_of_log_snr(self, log_snr: Tensor) -> Tensor:
        """Return the time t with lambda(t) = ``log_snr``, float32 of its shape; one of the ends if there is none."""
        wanted = in_double(log_snr)
        low, high = torch.zeros_like(wanted), torch.ones_like(wanted)
        for _ in range(56):  # to 1e-17: precise however small t is
            middle = (low + high) / 2
            is_cleaner = self.exact_log_snr(middle) > wanted
            low, high = middle.where(is_cleaner, low), high.where(is_cleaner, middle)
        return ((low + high) / 2).float().to(log_snr.device)

    def exact_log_snr(self, t: Tensor) -> Tensor:
        """Return lambda(t) in float64 (on the CPU, if the device has none), for what takes differences of it."""
        # t is limited, not the result: then no infinity turns gradients into nan; clamp would stop them at the ends
        (first, last), t = self.ends, in_double(t)
        return self.formula(t.where(t >= first, first).where(t <= last, last))


class LinearBetaSchedule(Schedule):
    """DDPM's betas, rising linearly over T steps (Ho et al. 2020 section 4): step i is at t = i / T.

    alpha_t^2 is there the product of 1 - beta_j over j <= i (their eq. 4), and 1 at t = 0. In between, log alpha^2 is
    linear, so that discrete and continuous time agree on the grid.

    Args:
        beta_min: beta_1, positive, the variance of the noise that the first step adds.
        beta_max: beta_T, from ``beta_min`` to below 1.
        num_steps: T.
    """

    ends = (1e-9, 1.0)

    def __init__(self, beta_min: float = 1e-4, beta_max: float = 0.02, num_steps: int = 1000) -> None:
        for name, beta in {"beta_min": beta_min, "beta_max": beta_max}.items():
            check_range(name, beta, above=0, below=1, hint="Ho et al. have 1e-4 to 0.02")
        if beta_min > beta_max:
            raise ValueError(f"beta_min={beta_min}, beta_max={beta_max}: need 0 < beta_min <= beta_max < 1")
        check_count("num_steps", num_steps, hint="Ho et al. have 1000")
        self.num_steps = num_steps
        betas = torch.linspace(beta_min, beta_max, num_steps, dtype=torch.float64)
        self._log_alpha_bars = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])  # (T + 1,)

    def formula(self, t: Tensor) -> Tensor:
        """log(alpha_t^2) - log(1 - alpha_t^2)."""
        self._log_alpha_bars = self._log_alpha_bars.to(t.device)  # stays there, instead of a copy each time
        position = t * self.num_steps
        before = position.detach().long().clamp(max=self.num_steps - 1)
        log_alpha_bar = torch.lerp(self._log_alpha_bars[before], self._log_alpha_bars[before + 1], position - before)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))


class CosineSchedule(Schedule):
    """alpha_t^2 = f(t) / f(0), f(t) = cos^2(pi / 2 (t + s) / (1 + s)) (Nichol & Dhariwal 2021 eq. 17).

    With betas clipped at 0.999, as there, the discrete schedule of T = 1000 steps has this alpha_t at each t = i / T:
    the clip only keeps the last step from alpha = 0, and :attr:`ends` is chosen so that it ends at the same value.

    Args:
        s: The offset that keeps the first steps from being too small; not negative.
    """

    # near 1, alpha is proportional to 1 - t: sqrt(1 - 0.999) of its value at 1 - 1/1000; lambda(1) = -19.8
    ends = (1e-9, 1 - 1e-3 * math.sqrt(1e-3))

    def __init__(self, s: float = 0.008) -> None:
        check_range("s", s, at_least=0, hint="theirs is 0.008")
        self.s = s

    def formula(self, t: Tensor) -> Tensor:
        """log(alpha_t^2) - log(1 - alpha_t^2), where f(0) - f(t) is sin(a - a_0) sin(a + a_0) for angles a."""
        advance, first = math.pi / 2 * t / (1 + self.s), math.pi / 2 * self.s / (1 + self.s)
        angle = first + advance
        return 2 * angle.cos().log() - advance.sin().log() - (angle + first).sin().log()


class SigmoidSchedule(Schedule):
    """alpha_t^2 is a piece of a falling sigmoid, stretched to [0, 1] (Jabri et al. 2022; Chen 2023 algorithm 1).

    alpha_t^2 = (sigmoid(b) - sigmoid(u)) / (sigmoid(b) - sigmoid(a)) for u = a + t (b - a), a = start / tau and
    b = end / tau.

    Args:
        start: Where the piece begins.
        end: Where it ends, above ``start``.
        tau: Temperature, positive; larger is closer to a straight line.
    """

    ends = (1e-9, 1 - 1e-8)  # Jabri et al. keep alpha^2 at 1e-9 or more; here lambda(1) = -19.6

    def __init__(self, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> None:
        for name, value in {"start": start, "end": end}.items():
            check_range(name, value, hint="-3 and 3 are usual")
        check_range("tau", tau, above=0, hint="1 is usual")
        if not start < end:
            raise ValueError(f"start={start}, end={end}, tau={tau}: need start < end and tau > 0, such as -3, 3, 1")
        self.a, self.b = start / tau, end / tau

    def formula(self, t: Tensor) -> Tensor:
        """log(alpha_t^2) - log(1 - alpha_t^2)."""
        # sigmoid(p) - sigmoid(q) = sigmoid(p) sigmoid(-q) (1 - exp(q - p)) keeps both exact where they are small
        width = self.b - self.a
        u = self.a + t * width
        constant = math.log1p(math.exp(self.a)) - math.log1p(math.exp(-self.b))
        return constant - u + torch.log(-torch.expm1((t - 1) * width)) - torch.log(-torch.expm1(-t * width))


class EDMSchedule(Schedule):
    """alpha_t = 1 and sigma_t^(1 / rho) linear in time (Karras et al. 2022 eq. 5, with t = 1 - i / (N - 1)).

    Args:
        sigma_min: sigma at t = 0, in units of the images; positive.
        sigma_max: sigma at t = 1, above ``sigma_min``.
        rho: How much finer small sigmas are spaced; positive.
    """

    variance_preserving = False

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        for name, value in {"sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho}.items():
            check_range(name, value, above=0, hint="Karras et al. have 0.002, 80 and 7")
        if not sigma_min < sigma_max:
            given = f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}"
            raise ValueError(f"{given}: need 0 < sigma_min < sigma_max and rho > 0, for instance 0.002, 80, 7")
        self.rho = rho
        self.first, self.last = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def formula(self, t: Tensor) -> Tensor:
        """-2 log sigma_t."""
        return -2 * self.rho * torch.log(self.first + t * (self.last - self.first))

    def path(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha = 1, sigma = exp(-lambda / 2)."""
        return torch.ones_like(log_snr), torch.exp(-log_snr / 2)


class RectifiedFlowSchedule(Schedule):
    """The straight line from image to noise, alpha_t = 1 - t and sigma_t = t (Liu et al. 2022 eq. 1)."""

    variance_preserving = False
    is_straight = True
    ends = (1e-9, CosineSchedule.ends[1])  # lambda(1) = -20.7

    def formula(self, t: Tensor) -> Tensor:
        """2 (log(1 - t) - log t)."""
        return 2 * (torch.log1p(-t) - torch.log(t))

    def path(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """alpha + sigma = 1."""
        return (log_snr / 2).sigmoid(), (-log_snr / 2).sigmoid()


class ShiftedSchedule(Schedule):
    """Another schedule with lambda(t) + 2 log(reference / size) on the same path (Hoogeboom et al. 2023 section 3.1).

    Averaged over the pixels that make one of the reference, the noise of a large image is as strong as there. On the
    path of rectified flow this is the resolution-dependent shift of times (Esser et al. 2024 eq. 23).

    Args:
        schedule: What is right for images of the reference's size.
        image_size: Pixels along a side of the images.
        reference_size: Pixels along a side of the reference.
    """

    def __init__(self, schedule: Schedule, image_size: int, reference_size: int = 64) -> None:
        check_count("image_size", image_size)
        check_count("reference_size", reference_size)
        self.schedule = schedule
        self.shift = 2 * math.log(reference_size / image_size)
        self.ends, self.ends_in_noise = schedule.ends, schedule.ends_in_noise
        self.variance_preserving, self.is_straight = schedule.variance_preserving, schedule.is_straight

    def formula(self, t: Tensor) -> Tensor:
        """The other schedule's, shifted."""
        return self.schedule.formula(t) + self.shift

    def path(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """The other schedule's."""
        return self.schedule.path(log_snr)


class ZeroTerminalSNRSchedule(Schedule):
    """Another schedule, its alpha shifted and stretched to end at 0, on the same path (Lin et al. 2024 algorithm 1).

    alpha_t becomes (alpha_t - alpha_1) / (1 - alpha_1). At t = 1 there is then only the noise that samplers begin from,
    so that samples have no brightness error. (Theirs leaves alpha as it was after the first step, 1/1000, instead of at
    t = 0, which is the same to 1e-6.) The noise tells nothing of the image there, so that the network must predict
    something else, for instance v, as they do. A weight that falls with the SNR, as MinSNRWeight, does not train t = 1.

    Args:
        schedule: One on which alpha falls: variance preserving or straight.

    Raises:
        ValueError: If it is not.
    """

    ends_in_noise = True

    def __init__(self, schedule: Schedule) -> None:
        if not (schedule.variance_preserving or schedule.is_straight):
            name = type(schedule).__name__
            raise ValueError(f"schedule={name}: its alpha does not fall to 0; take CosineSchedule, for instance")
        self.schedule = schedule
        self.variance_preserving, self.is_straight = schedule.variance_preserving, schedule.is_straight
        self.ends = (schedule.ends[0], 1.0)
        self._kept = 1 - schedule.path(schedule.exact_log_snr(torch.ones((), dtype=torch.float64)))[0].item()

    def formula(self, t: Tensor) -> Tensor:
        """2 (log alpha - log sigma), from 1 - alpha, which is exact where it is small."""
        alpha, sigma = self.schedule.path(self.schedule.exact_log_snr(t))
        lost = (sigma if self.is_straight else sigma.square() / (1 + alpha)) / self._kept  # 1 - the new alpha
        lost = lost.where(t < 1, 1.0).clamp(max=1)  # exactly, and not beyond for rounding
        log_sigma = lost.log() if self.is_straight else (lost.log() + (2 - lost).log()) / 2
        return 2 * (torch.log1p(-lost) - log_sigma)

    def path(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """The other schedule's."""
        return self.schedule.path(log_snr)
