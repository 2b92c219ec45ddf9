"""UniPC: a multistep solver that corrects each step by the estimate that the next one needs anyway."""

from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from lit_generative.checks import check_count
from lit_generative.diffusion.samplers import Sampler, SamplingState, mix, towards
from lit_generative.diffusion.schedules import NoiseLevel
from lit_generative.diffusion.spacings import LogSNRSpacing, Spacing
from lit_generative.diffusion.thresholding import Thresholding

__all__ = ["UniPC"]


class Memory(NamedTuple):
    """What a step leaves to the next.

    Attributes:
        estimates: The last levels and the estimates of x_0 there, the latest first.
        predicted: The integral that the step was made with, (B, ...).
    """

    estimates: list[tuple[NoiseLevel, Tensor]]
    predicted: Tensor | None


class UniPC(Sampler):
    """The predictor-corrector of Zhao et al. 2023 ("UniPC", algorithms 1 and 2), on estimates of x_0.

    In terms of lambda = log(alpha / sigma) the ODE's solution is (Lu et al. 2022, "DPM-Solver++", proposition 4.1)

        x_s = sigma_s / sigma_t x_t + alpha_s I,    I = integral over tau from 0 to h of e^(tau - h) x_0(lambda_t + tau)

    The predictor takes for x_0 the polynomial through the last ``order`` estimates. The corrector takes the one through
    the estimate at s as well, and adds alpha_s times the difference of the two I to x_s, without another evaluation.
    Both integrals are exact, which makes the method of order p + 1 (theirs approximate them, to the same order). The
    first step and the last, where h is infinite, take the estimate itself.

    Args:
        steps, spacing, thresholding: See :class:`Sampler`; by default steps are equal in log-SNR.
        order: p, 1 to 3. Fewer where guidance is strong.
    """

    draws_noise = False

    def __init__(
        self,
        steps: int = 15,
        spacing: Spacing | None = None,
        thresholding: Thresholding | None = None,
        order: int = 3,
    ) -> None:
        super().__init__(steps, spacing, thresholding)
        check_count("order", order, at_least=1, at_most=3, hint="theirs is 2 or 3")
        self.order = order

    def default_spacing(self) -> Spacing:
        """Return equal steps in log-SNR."""
        return LogSNRSpacing()

    def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
        """Return x_s, after the correction of ``x_t`` by the estimate there."""
        x0, memory = state.denoise(x_t, t).x0, state.memory or Memory([], None)
        estimates = [(t, x0), *memory.estimates]
        if memory.predicted is not None:
            x_t = x_t + t.alpha * (_integral(estimates[: self.order + 1], estimates[1][0], t) - memory.predicted)
        if s.alpha == 0 or s.noise_ratio(t) == 0:
            state.memory = Memory([], None)
            return towards(x0, x_t, t, s)
        predicted = _integral(estimates[: self.order], t, s)
        state.memory = Memory(estimates[: self.order], predicted)
        return mix(s.sigma / t.sigma, x_t, s.alpha, predicted)


def _integral(estimates: list[tuple[NoiseLevel, Tensor]], t: NoiseLevel, s: NoiseLevel) -> Tensor:
    """Return I, (B, ...), for the polynomial through ``estimates`` (level and value, (B, ...))."""
    h = -log(s.noise_ratio(t))
    moments = [-torch.expm1(torch.tensor(-h, dtype=torch.float64)).item()]  # the integrals of e^(tau - h) tau^n
    for n in range(1, len(estimates)):
        moments.append(h**n - n * moments[-1])
    nodes = torch.tensor([-log(level.noise_ratio(t)) for level, _ in estimates], dtype=torch.float64)
    powers = nodes ** torch.arange(len(nodes))[:, None]
    weights = torch.linalg.solve(powers, nodes.new_tensor(moments)).tolist()
    total = weights[0] * estimates[0][1]
    for weight, (_, x0) in zip(weights[1:], estimates[1:], strict=True):
        total = total.add_(x0, alpha=weight)
    return total
