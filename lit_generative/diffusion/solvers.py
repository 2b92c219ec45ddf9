"""Samplers that solve the probability-flow ODE: few, deterministic steps, of which most are of second order.

Notation as in :mod:`lit_generative.diffusion.samplers`: a step goes from the noise level t to the lower s.
"""

from math import inf, log

from torch import Tensor

from lit_generative.diffusion.runs import Level, Run, mix
from lit_generative.diffusion.samplers import Sampler, check_unit, with_noise
from lit_generative.diffusion.spacings import KarrasSpacing, Spacing
from lit_generative.diffusion.thresholding import Thresholding

__all__ = ["DPMSolverPP2M", "EulerSampler", "HeunSampler"]


class DPMSolverPP2M(Sampler):
    """DPM-Solver++(2M) of second order (Lu et al. 2022, "DPM-Solver++", algorithm 2) and its SDE form.

    With lambda = log(alpha / sigma), h = lambda_s - lambda_t and h' the step before, the estimate is extrapolated to
    D = x_0 + h / (2 h') (x_0 - x_0'), and x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^-h) D. The first step and the
    last, where h is infinite, take D = x_0.

    Args:
        steps: The number of steps, each of one network evaluation.
        spacing: The times they are taken at; None: equal steps in t.
        limit: What is done to each estimate of x_0.
        eta: How much noise is replaced by fresh noise: 0 is the ODE, 1 the reverse SDE (SDE-DPM-Solver++(2M)); in
            between, h above becomes (1 + eta) h where x_0 comes in and x_t is shrunk by another e^(-eta h).

    Raises:
        ValueError: If ``eta`` is outside [0, 1].
    """

    def __init__(
        self, steps: int = 20, spacing: Spacing | None = None, limit: Thresholding | None = None, eta: float = 0.0
    ) -> None:
        super().__init__(steps, spacing, limit)
        check_unit("eta", eta)
        self.eta = eta

    def step(self, x_t: Tensor, t: Level, s: Level, run: Run) -> Tensor:
        """Return x_s, and remember the estimate of x_0 for the next step."""
        x0 = run.denoise(x_t, t)
        decay = s.noise_ratio(t)  # e^-h
        D = self._extrapolated(x0, t, decay, run)
        run.earlier = (t, x0)
        x_s = mix(s.sigma / t.sigma * decay**self.eta, x_t, s.alpha * (1 - decay ** (1 + self.eta)), D)
        return with_noise(x_s, s.sigma * (1 - decay ** (2 * self.eta)) ** 0.5, run)

    def _extrapolated(self, x0: Tensor, t: Level, decay: float, run: Run) -> Tensor:
        if run.earlier is None or decay == 0:
            return x0
        before, x0_before = run.earlier
        decay_before = t.noise_ratio(before)
        h_before = -log(decay_before) if decay_before else inf  # from pure noise, where alpha is 0
        weight = -log(decay) / (2 * h_before)
        return mix(1 + weight, x0, -weight, x0_before)


class EulerSampler(Sampler):
    """Euler's method on the probability-flow ODE dx' / dsigma' = eps(x), x' = x / alpha, sigma' = sigma / alpha.

    It is x_s' = x_t' + (sigma_s' - sigma_t') eps (Karras et al. 2022, eq. 3 with sigma' as the time), in other words
    DDIM with eta = 0 (Song et al. 2021, eq. 13), by default at other times. With the spacing
    :class:`~lit_generative.diffusion.spacings.ChurnedSpacing` it is stochastic.
    """

    def default_spacing(self) -> Spacing:
        """Return that of Karras et al. with rho = 7."""
        return KarrasSpacing()

    def step(self, x_t: Tensor, t: Level, s: Level, run: Run) -> Tensor:
        """Return x_s, of which the error is of second order in the step."""
        return self._line(x_t, run.denoise(x_t, t), t, s)

    def _line(self, x_t: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
        eps_scale = s.sigma / t.sigma
        return mix(eps_scale, x_t, s.alpha - eps_scale * t.alpha, x0)


class HeunSampler(EulerSampler):
    """Heun's method on the same ODE: the mean of the slopes at both ends of the step (Karras et al. 2022, algorithm 1).

    As eps' - eps = alpha_s / sigma_s (x_0 - x_0') along Euler's line, the correction is
    alpha_s / 2 (sigma_t' / sigma_s' - 1) (x_0' - x_0). The last step, to sigma = 0, is Euler's, and so is one from pure
    noise, alpha_t = 0, where sigma' is infinite. With the spacing
    :class:`~lit_generative.diffusion.spacings.ChurnedSpacing` it is their algorithm 2.
    """

    @property
    def network_evaluations(self) -> int:
        """How often ``sample`` calls ``denoise``: twice a step, but once where the step ends at sigma = 0."""
        return (2 * self.steps - 1) * self.spacing.passes

    def step(self, x_t: Tensor, t: Level, s: Level, run: Run) -> Tensor:
        """Return x_s, of which the error is of third order in the step."""
        x0 = run.denoise(x_t, t)
        x_s = self._line(x_t, x0, t, s)
        if s.sigma == 0 or t.alpha == 0:
            return x_s
        x0_s = run.denoise(x_s, s)
        return x_s.add_(x0_s - x0, alpha=s.alpha / 2 * (1 / s.noise_ratio(t) - 1))
