"""Samplers: from noise to images in steps, each a look at an estimate of the clean image.

A sampler knows a :data:`~lit_generative.diffusion.denoiser.Denoiser` and a schedule, and no network. In a step, t is
the noise level where x is and s the lower one where it goes; ``t.alpha`` is alpha_t, ``s.sigma`` sigma_s.
"""

import copy
import inspect
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import log
from typing import Any, TypeVar

import torch
from torch import Tensor

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.diffusion.denoiser import Denoiser, Estimate
from lit_generative.diffusion.schedules import NoiseLevel, Schedule
from lit_generative.diffusion.spacings import ResampledSpacing, Spacing, StraightOrKarrasSpacing, UniformSpacing
from lit_generative.diffusion.thresholding import Thresholding

__all__ = [
    "DDIM",
    "AncestralSampler",
    "DPMSolverPP2M",
    "EulerSampler",
    "HeunSampler",
    "Sampler",
    "SamplingState",
    "draw_like",
    "mix",
    "raise_noise",
]


class SamplingState:
    """What the steps of one run have at hand; a sampler itself keeps no state, so that it may be used twice at once.

    Attributes:
        earlier: For a multistep solver: the level before this one, and the estimate of x_0 there.
        memory: For one that needs to know more, whatever it left here. Both are None where there is no smooth path.
    """

    def __init__(self, denoiser: Denoiser, generator: torch.Generator | None = None) -> None:
        self.denoiser, self.generator = denoiser, generator
        self.earlier: tuple[NoiseLevel, Tensor] | None = None
        self.memory: Any = None

    def denoise(self, x_t: Tensor, t: NoiseLevel) -> Estimate:
        """Return the estimate for ``x_t`` (B, ...), all of one level."""
        dtype = torch.promote_types(x_t.dtype, torch.float32)
        return self.denoiser(x_t, torch.full((len(x_t),), t.t, dtype=dtype, device=x_t.device))

    def noise(self, x: Tensor) -> Tensor:
        """Draw standard normal noise like ``x`` (B, ...)."""
        return draw_like(x, self.generator)


Adjust = Callable[[Tensor, NoiseLevel], Tensor]
Self = TypeVar("Self", bound="Sampler")


class Sampler(Described, ABC):
    """The loop over noise levels; a subclass writes one step, and says what it takes.

    Args:
        steps: N, the number of steps down.
        spacing: The times between which they are. None: :meth:`default_spacing`, for most equal steps in t.
        thresholding: What is done to each estimate of x_0. None: nothing.

    Attributes:
        evaluates_ends: Whether a step asks the denoiser at s as well as at t, unless s is the clean image.
    """

    evaluates_ends: bool = False

    def __init__(
        self, steps: int = 50, spacing: Spacing | None = None, thresholding: Thresholding | None = None
    ) -> None:
        check_count("steps", steps)
        self.steps, self.thresholding = steps, thresholding
        self.spacing = self.default_spacing() if spacing is None else spacing

    def default_spacing(self) -> Spacing:
        """Return the spacing that is used when none is given."""
        return UniformSpacing()

    @abstractmethod
    def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
        """Return x_s, (B, ...), for ``x_t``; s is less noisy than t, and at the last step the clean image.

        ``state.denoise(x_t, t)`` is the estimate, ``state.noise(x_t)`` draws noise.
        """

    # ---------------------------------------------------------------- what is known without sampling

    @property
    def draws_noise(self) -> bool:
        """Whether steps draw noise; a subclass says so if they do not."""
        return True

    @property
    def is_deterministic(self) -> bool:
        """Whether x_T alone decides the image: no step draws noise, and the spacing puts none back."""
        return not (self.draws_noise or self.spacing.puts_noise_back)

    @property
    def evaluations(self) -> int:
        """How often the denoiser is asked for an image."""
        return (2 * self.steps - 1 if self.evaluates_ends else self.steps) * self.spacing.passes

    def evaluated_at(self, schedule: Schedule) -> list[float]:
        """Return the times of these :attr:`evaluations`, in their order."""
        times = []
        for t, s in pairwise(self.levels(schedule)):
            if s.is_below(t):
                times += [t.t, s.t] if self.evaluates_ends and s.sigma > 0 else [t.t]
        return times

    def with_steps(self: Self, steps: int) -> Self:
        """Return a copy that takes so many steps, and is described so. Override it where more depends on their number.

        Raises:
            ValueError: If the class is not constructed with steps.
        """
        check_count("steps", steps)
        try:
            inspect.signature(type(self)).bind_partial(steps=steps)
        except TypeError:
            raise ValueError(f"{type(self).__name__} cannot be made with steps={steps}") from None
        other = copy.copy(self)
        other.steps, other._init_args = steps, self._init_args | {"steps": steps}
        return other

    def resampled(self: Self, passes: int) -> Self:
        """Return one that takes each sixth of its steps ``passes`` times, with the noise put back in between.

        That is RePaint's (:class:`~lit_generative.diffusion.spacings.ResampledSpacing`). One that puts noise back of
        itself stays as it is.
        """
        if passes == 1 or self.spacing.puts_noise_back:
            return self
        other = copy.copy(self)
        other.spacing = ResampledSpacing(self.spacing, max(1, self.steps // 6), passes)
        return other

    # ---------------------------------------------------------------- the loop

    def levels(self, schedule: Schedule, start: float = 1.0) -> list[NoiseLevel]:
        """Return the levels on the way from time ``start`` to the clean image."""
        return schedule.levels(self.spacing.path(self.steps, schedule, start))

    def begin(self, denoise: Denoiser, generator: torch.Generator | None = None) -> SamplingState:
        """Return the state of a run before its first step: the thresholded denoiser, and no memory."""
        return SamplingState(self.thresholding.wrap(denoise) if self.thresholding else denoise, generator)

    def sample(
        self,
        denoise: Denoiser,
        x_T: Tensor,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        start: float = 1.0,
        adjust: Adjust | None = None,
    ) -> Tensor:
        """Return images (B, ...) made from ``x_T``: the last of the :meth:`trajectory`, of the same arguments."""
        way = self.trajectory(denoise, x_T, schedule, generator=generator, start=start, adjust=adjust)
        return deque(way, maxlen=1).pop()

    @torch.no_grad()
    def trajectory(
        self,
        denoise: Denoiser,
        x_T: Tensor,
        schedule: Schedule,
        *,
        generator: torch.Generator | None = None,
        start: float = 1.0,
        adjust: Adjust | None = None,
    ) -> Iterator[Tensor]:
        """Yield ``x_T`` and then x, (B, ...), after each step down.

        Args:
            denoise: What is asked at each step.
            x_T: Where to begin, (B, ...): noise of the standard deviation ``levels(schedule)[0].sigma``.
            schedule: The one that the denoiser was trained with.
            generator: The source of all noise, on any device. None: torch's own.
            start: The time to begin at, in (0, 1].
            adjust: Called with x and its level at the beginning and after each step; it is gone on with the result.
        """
        state, levels = self.begin(denoise, generator), self.levels(schedule, start)
        adjust = adjust or (lambda x, level: x)
        x = adjust(x_T, levels[0])
        yield x
        for t, s in pairwise(levels):
            if s.is_below(t):
                yield (x := adjust(self.step(x, t, s, state), s))
            else:
                x = adjust(raise_noise(x, t, s, state.noise(x), self.spacing.inflation), s)
                state.earlier = state.memory = None  # there is no smooth path from there to here


# -------------------------------------------------------------------- samplers


class AncestralSampler(Sampler):
    """Draws from q(x_s | x_t, x_0) at the estimate of x_0 (Ho et al. 2020, algorithm 2), between any two times.

    With sigma_{t|s}^2 = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2, which is DDPM's beta_t, the mean is
    (alpha_t / alpha_s) (sigma_s / sigma_t)^2 x_t + alpha_s (sigma_{t|s} / sigma_t)^2 x_0 (Kingma et al. 2021, app. A).
    The variance is beta^v beta-tilde^(1 - v) with beta = sigma_{t|s}^2 and the posterior's beta-tilde =
    (sigma_{t|s} sigma_s / sigma_t)^2 (Nichol & Dhariwal 2021, eq. 15). The last step returns the mean.

    Args:
        steps, spacing, thresholding: See :class:`Sampler`; T steps are DDPM itself.
        v: 0 is the posterior's own variance, right for data at a point; 1 is beta, right for white noise (Ho et al.
            2020, section 3.2). With few steps 0 is much the better. None: that of the estimate, which a model with
            :class:`~lit_generative.diffusion.variance.LearnedVariance` gives.
    """

    def __init__(
        self,
        steps: int = 1000,
        spacing: Spacing | None = None,
        thresholding: Thresholding | None = None,
        v: float | None = 0.0,
    ) -> None:
        super().__init__(steps, spacing, thresholding)
        check_range("v", v, at_least=0, at_most=1, hint="0 adds the least noise, 1 the most")
        self.v = v

    def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
        """Draw x_s.

        Raises:
            ValueError: If v is None, and that of the estimate as well.
        """
        x0, v_of_pixels = state.denoise(x_t, t)
        v = v_of_pixels if self.v is None else self.v
        if v is None:
            raise ValueError("v=None: the variance is not learned, estimates have no v; take v=0 or v=1")
        beta = t.sigma**2 * (1 - s.noise_ratio(t) ** 2)
        shrink = (s.sigma / t.sigma) ** 2
        mean = mix(t.alpha / s.alpha * shrink, x_t, s.alpha * beta / t.sigma**2, x0)
        if s.sigma == 0:
            return mean
        std = (beta * shrink ** (1 - v)) ** 0.5
        return mean.addcmul_(state.noise(mean), std) if isinstance(std, Tensor) else with_noise(mean, std, state)


class DDIM(Sampler):
    """x_s = alpha_s x_0 + (sigma_s^2 - std^2)^(1/2) eps + std z (Song et al. 2021, eq. 12).

    eps = (x_t - alpha_t x_0) / sigma_t belongs to the estimate of x_0, and std is eta times the posterior's standard
    deviation, (sigma_s / sigma_t) (sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2)^(1/2) (eq. 16).

    Args:
        steps, spacing, thresholding: See :class:`Sampler`.
        eta: 0 is deterministic, 1 is :class:`AncestralSampler` with v = 0.
    """

    def __init__(
        self,
        steps: int = 50,
        spacing: Spacing | None = None,
        thresholding: Thresholding | None = None,
        eta: float = 0.0,
    ) -> None:
        super().__init__(steps, spacing, thresholding)
        check_range("eta", eta, at_least=0, at_most=1, hint="0 adds the least noise, 1 the most")
        self.eta = eta

    @property
    def draws_noise(self) -> bool:
        """Whether eta is positive."""
        return self.eta > 0

    def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
        """Return x_s."""
        x0 = state.denoise(x_t, t).x0
        fresh = self.eta**2 * (1 - s.noise_ratio(t) ** 2) if self.eta else 0.0  # std^2 / sigma_s^2
        return with_noise(towards(x0, x_t, t, s, fresh), s.sigma * fresh**0.5, state)


class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M) of second order (Lu et al. 2022, "DPM-Solver++", algorithm 2) and its SDE form.

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t and h' the step before, the estimate is extrapolated to
    D = x_0 + h / (2 h') (x_0 - x_0'), and x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^-h) D. The first step and the
    last, where h is infinite, take D = x_0.

    Args:
        steps, spacing, thresholding: See :class:`Sampler`.
        eta: How much noise is replaced by fresh noise: 0 is the ODE, 1 the reverse SDE (SDE-DPM-Solver++(2M)); in
            between, h above becomes (1 + eta) h where x_0 comes in and x_t is shrunk by another e^(-eta h).
    """

    def __init__(
        self,
        steps: int = 20,
        spacing: Spacing | None = None,
        thresholding: Thresholding | None = None,
        eta: float = 0.0,
    ) -> None:
        super().__init__(steps, spacing, thresholding)
        check_range("eta", eta, at_least=0, at_most=1, hint="0 is the ODE, 1 the reverse SDE")
        self.eta = eta

    @property
    def draws_noise(self) -> bool:
        """Whether eta is positive."""
        return self.eta > 0

    def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
        """Return x_s, and remember the estimate of x_0 for the next step."""
        x0 = state.denoise(x_t, t).x0
        decay = s.noise_ratio(t)  # e^-h
        if s.alpha == 0:  # upwards, as in encoding, to noise alone
            return towards(x0, x_t, t, s)
        D = self._extrapolated(x0, t, decay, state)
        state.earlier = (t, x0)
        x_s = mix(s.sigma / t.sigma * decay**self.eta, x_t, s.alpha * (1 - decay ** (1 + self.eta)), D)
        return with_noise(x_s, s.sigma * (1 - decay ** (2 * self.eta)) ** 0.5, state)

    def _extrapolated(self, x0: Tensor, t: NoiseLevel, decay: float, state: SamplingState) -> Tensor:
        if state.earlier is None or decay == 0:
            return x0
        before, x0_before = state.earlier
        if before.alpha == 0:  # h' is infinite
            return x0
        weight = log(decay) / (2 * log(t.noise_ratio(before)))  # h / (2 h')
        return mix(1 + weight, x0, -weight, x0_before)


class EulerSampler(Sampler):
    """Euler's method on the probability-flow ODE dx' / dsigma' = eps(x), x' = x / alpha, sigma' = sigma / alpha.

    It is x_s' = x_t' + (sigma_s' - sigma_t') eps (Karras et al. 2022, eq. 3 with sigma' as the time), in other words
    DDIM with eta = 0 (Song et al. 2021, eq. 13), by default at other times. With the spacing
    :class:`~lit_generative.diffusion.spacings.ChurnedSpacing` it is stochastic.
    """

    draws_noise = False

    def default_spacing(self) -> Spacing:
        """Return equal steps in t for a straight schedule, and those of Karras et al. for any other."""
        return StraightOrKarrasSpacing()

    def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
        """Return x_s, of which the error is of second order in the step."""
        return towards(state.denoise(x_t, t).x0, x_t, t, s)


class HeunSampler(EulerSampler):
    """Heun's method on the same ODE: the mean of the slopes at both ends of a step (Karras et al. 2022, algorithm 1).

    As x may be scaled differently at each level, any line may lead from (alpha_t, sigma_t) to (alpha_s, sigma_s). By
    the straight one the slope is (alpha_s - alpha_t) x_0 + (sigma_s - sigma_t) eps, bounded on every schedule, unlike
    that by sigma / alpha. It is theirs where alpha is 1, as in EDM, and dx / dt on the path of rectified flow; Euler's
    step along it is that of :class:`EulerSampler`. Its correction is half of what the slope has changed by: since
    eps' - eps = alpha_s / sigma_s (x_0 - x_0') there, (sigma_t alpha_s / sigma_s - alpha_t) / 2 (x_0' - x_0).

    The last step, to sigma = 0, is Euler's. With the spacing
    :class:`~lit_generative.diffusion.spacings.ChurnedSpacing` it is their algorithm 2.
    """

    evaluates_ends = True

    def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
        """Return x_s, of which the error is of third order in the step."""
        x0 = state.denoise(x_t, t).x0
        x_s = towards(x0, x_t, t, s)
        if s.sigma == 0:
            return x_s
        x0_s = state.denoise(x_s, s).x0
        return x_s.add_(x0_s - x0, alpha=(t.sigma * s.alpha / s.sigma - t.alpha) / 2)


# -------------------------------------------------------------------- what steps are made of


def mix(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """Return a x + b y in two passes over memory rather than three."""
    return torch.add(a * x, y, alpha=b)


def towards(x0: Tensor, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, fresh: float = 0.0) -> Tensor:
    """Return x_s without its fresh noise, which is the share ``fresh`` of its variance sigma_s^2."""
    # Song et al. 2021, eq. 12: x_s = alpha_s x_0 + (sigma_s^2 - std^2)^(1/2) eps + std z. With their
    # eps = (x_t - alpha_t x_0) / sigma_t and c = (sigma_s^2 - std^2)^(1/2) / sigma_t, what comes before z is
    # c x_t + (alpha_s - c alpha_t) x_0: two passes over the images, a third of the time that eps would take.
    c = s.sigma / t.sigma * (1 - fresh) ** 0.5
    return mix(c, x_t, s.alpha - c * t.alpha, x0)


def raise_noise(x_t: Tensor, t: NoiseLevel, s: NoiseLevel, noise: Tensor, inflation: float = 1.0) -> Tensor:
    """Take ``x_t`` from level t to the noisier s by the forward process, q(x_s | x_t).

    With alpha_{s|t} = alpha_s / alpha_t it is alpha_{s|t} x_t + (sigma_s^2 - alpha_{s|t}^2 sigma_t^2)^(1/2) noise
    (Kingma et al. 2021, appendix A); ``inflation`` multiplies the noise.
    """
    alpha_st = s.alpha / t.alpha
    variance = max(s.sigma**2 - (alpha_st * t.sigma) ** 2, 0.0)
    return mix(alpha_st, x_t, inflation * variance**0.5, noise)


def with_noise(x: Tensor, std: float, state: SamplingState) -> Tensor:
    """Add noise to ``x`` (B, ...) in place, if ``std`` is positive."""
    return x.add_(state.noise(x), alpha=std) if std > 0 else x


def draw_like(x: Tensor, generator: torch.Generator | None, draw: Callable[..., Tensor] = torch.randn) -> Tensor:
    """Draw like ``x`` (B, ...), by torch.randn or torch.rand, from a generator on any device; None: torch's own."""
    device = x.device if generator is None else generator.device
    return draw(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
