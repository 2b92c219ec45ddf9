"""The likelihood of a diffusion model as a flow: exact but for the solver, a random trace and dequantisation."""

import math
from itertools import pairwise

import torch
from torch import Tensor

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.diffusion.denoiser import Denoiser
from lit_generative.diffusion.samplers import SamplingState, draw_like
from lit_generative.diffusion.schedules import NoiseLevel, Schedule
from lit_generative.diffusion.spacings import LogSNRSpacing, Spacing, check_descends
from lit_generative.eight_bit import BIN

__all__ = ["FlowLikelihood"]


class FlowLikelihood(Described):
    """log p(x_0) by the probability-flow ODE (Song et al. 2021, "Score-based generative modeling", eq. 39).

    With x' = x / alpha and s = sigma / alpha the ODE is dx' / ds = eps(x', s), and along it d log p / ds = -div eps, so

        log p(x_0) = log N(x'(s_max); 0, s_max^2) + integral from s_min to s_max of div eps(x'(s), s) ds

    with x'(s_min) = x_0. As s eps = x' - x0_hat, the integral is taken of div(x' - x0_hat) by log s, which is smooth:
    it rises from about 0 to the number of dimensions. The divergence of f is estimated as the mean of z . grad(z . f)
    over vectors z of random signs (Hutchinson's estimator, their eq. 40), drawn anew at each evaluation, so that the
    errors average out; it has no bias. All this is the likelihood of samples by Heun's method that end at s_min.

    Args:
        steps: Steps of Heun's method, each of two evaluations of the network and ``probes`` gradients of both. On
            Gaussian data 50 are 0.006 bits/dim too favourable, and twice as many a quarter of that.
        probes: Vectors z an evaluation, at least 1.
        spacing: The levels between s_max and s_min. None: equal steps in log s.
        dequantise: For images of 256 levels in [-1, 1]: add to each value noise that is uniform over its bin, and
            return a bound, in expectation, on the logarithm of the bin's probability (Theis et al. 2016, section 3.1),
            comparable with the variational bound. Otherwise return a density at x_0.
        sigma_min: s_min, to which all levels are taken down, so that numbers compare across schedules; where the
            schedule's own lowest is higher, that. By default the standard deviation of the noise over a bin, with which
            a pixel of probability 1 costs least, 0.25 bits.
        sigma_max: s_max; where the schedule's highest is lower, that.

    Raises:
        ValueError: If ``spacing`` puts noise back, or ``sigma_min`` and ``sigma_max`` do not rise.
    """

    def __init__(
        self,
        steps: int = 50,
        probes: int = 1,
        spacing: Spacing | None = None,
        dequantise: bool = True,
        sigma_min: float = BIN / 12**0.5,
        sigma_max: float = 80.0,
    ) -> None:
        check_count("steps", steps)
        check_count("probes", probes)
        self.steps, self.probes, self.dequantise = steps, probes, dequantise
        check_range("sigma_min", sigma_min, above=0, below=sigma_max, hint="it is the lowest noise level")
        self.spacing = LogSNRSpacing(sigma_min, sigma_max, t_min=0.0) if spacing is None else spacing
        check_descends(self.spacing)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max

    def levels(self, schedule: Schedule) -> list[NoiseLevel]:
        """Return the levels from s_max to s_min, at most ``steps`` + 1."""
        log_snr = -2 * torch.tensor([self.sigma_max, self.sigma_min], dtype=torch.float64).log()
        start, end = schedule.time_of_log_snr(log_snr).double().tolist()
        end = max(end, 1e-9)  # 0 is the clean image
        above = schedule.levels([t for t in self.spacing.path(self.steps + 1, schedule, start)[:-2] if t > end])
        (last,) = schedule.levels([end])
        return [*(level for level in above if last.is_below(level)), last]

    def log_prob(
        self, denoise: Denoiser, x0: Tensor, schedule: Schedule, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return log p of images ``x0`` (B, ...), (B,), in nats. Autograd may be off, or in inference mode.

        Args:
            denoise: Differentiable by x_t, each image's estimate depending on that image alone. It must not keep
                tensors that were made in inference mode, labels for instance; clone them.
            x0: The images.
            schedule, generator: See :meth:`Sampler.trajectory`.
        """
        state = SamplingState(denoise, generator)
        levels = self.levels(schedule)
        with torch.inference_mode(False), torch.no_grad():
            x, log_p = x0.clone(), x0.new_zeros(len(x0))
            if self.dequantise:
                x = x + BIN * (draw_like(x, generator, torch.rand) - 0.5)
                log_p += x0[0].numel() * math.log(BIN)
            for s, t in pairwise(reversed(levels)):
                step, log_step = _ratio(t) - _ratio(s), math.log(_ratio(t) / _ratio(s))
                eps, divergence = self._slopes(x, s, state)
                eps_t, divergence_t = self._slopes(x + step * eps, t, state)
                x = x + step / 2 * (eps + eps_t)
                log_p += log_step / 2 * (divergence + divergence_t)
            return log_p + _log_normal(x, _ratio(levels[0]))

    def _slopes(self, x: Tensor, level: NoiseLevel, state: SamplingState) -> tuple[Tensor, Tensor]:
        """Return at x' = ``x`` the derivative by s, eps (B, ...), and the estimate of that of -log p by log s, (B,)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            residual = x - state.denoise(level.alpha * x, level).x0
        divergence = x.new_zeros(len(x))
        for probe in range(1, self.probes + 1):
            z = torch.ones_like(x).copysign(state.noise(x))
            (gradient,) = torch.autograd.grad(residual, x, z, retain_graph=probe < self.probes)
            divergence += (z * gradient).flatten(1).sum(1) / self.probes
        return residual.detach() / _ratio(level), divergence


def _ratio(level: NoiseLevel) -> float:
    """Return s = sigma / alpha."""
    return level.sigma / level.alpha


def _log_normal(x: Tensor, std: float) -> Tensor:
    """Return log N(x; 0, std^2), (B,), of ``x`` (B, ...)."""
    z = x.flatten(1) / std
    return -z.square().sum(1) / 2 - z.shape[1] * (math.log(std) + math.log(2 * math.pi) / 2)
