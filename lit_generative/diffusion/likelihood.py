"""The variational bound on -log p(x_0), term by term, all in nats per image, summed over its dimensions.

DDPM is a chain of T steps down, i = T, ..., 1, from t = i / T to s = (i - 1) / T. In a step both the posterior
q(x_s|x_t, x_0) = N(mu(x_t, x_0), beta-tilde) and the model p(x_s|x_t) = N(mu(x_t, x0_hat), Sigma) are Gaussian, with
the same mu. Sigma = beta^v beta-tilde^(1 - v) for a fraction v, fixed or learned (Nichol & Dhariwal 2021, eq. 15), or
the optimal one (Bao et al. 2022); beta and beta-tilde are explained at
:class:`~lit_generative.diffusion.samplers.AncestralSampler`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.diffusion.denoiser import Denoiser, Estimate
from lit_generative.diffusion.samplers import draw_like
from lit_generative.diffusion.schedules import Schedule, per_image
from lit_generative.diffusion.thresholding import Thresholding
from lit_generative.eight_bit import HALF_BIN
from lit_generative.numerics import in_double

__all__ = ["BoundTerms", "ChainStep", "VariationalBound", "discretized_gaussian"]

LEAST_VARIANCE = (HALF_BIN / 3) ** 2
"""Of the decoder: where it is sure of a level, that has 0.997 of the probability."""


class BoundTerms(NamedTuple):
    """The terms of the bound, of each of B images (Ho et al. 2020 eq. 5).

    Attributes:
        prior: L_T = KL(q(x_T|x_0) || p(x_T)), (B,).
        decoder: L_0 = -log p(x_0|x_1), (B,).
        times: The t = i / T of ``steps``, (B, n).
        steps: L_{i-1} = KL(q(x_s|x_t, x_0) || p(x_s|x_t)), (B, n): all those with i > 1, or a sample of them.
        counts: How many steps each of ``steps`` stands for, (n,); T - 1 together.
    """

    prior: Tensor
    decoder: Tensor
    times: Tensor
    steps: Tensor
    counts: Tensor

    @property
    def total(self) -> Tensor:
        """The bound, or an unbiased estimate of it, (B,)."""
        return self.prior + self.decoder + (self.steps * self.counts).sum(1)


class ChainStep(NamedTuple):
    """What the terms of the chain's steps i depend on, (n,) or one number per image shaped (B, 1, ...).

    Attributes:
        log_tilde: log beta-tilde; at i = 1, where it is infinite, that of i = 2 (Nichol & Dhariwal's code).
        log_ratio: log(beta / beta-tilde) with the same exception.
        fall: SNR(s) - SNR(t); at i = 1, where it has no meaning, that of i = 2.
    """

    log_tilde: Tensor
    log_ratio: Tensor
    fall: Tensor

    @classmethod
    def at(cls, i: Tensor, schedule: Schedule, num_steps: int) -> "ChainStep":
        """Return the float64 values for ``i``, of any shape, whole numbers from 1 to ``num_steps``."""
        i = in_double(i)
        later = i.clamp(min=2)
        lambda_t, lambda_s = schedule.exact_log_snr(later / num_steps), schedule.exact_log_snr((later - 1) / num_steps)
        log_variance_t, log_variance_s = (2 * schedule.path(log_snr)[1].log() for log_snr in (lambda_t, lambda_s))
        share = -torch.expm1(lambda_t - lambda_s)  # 1 - SNR(t) / SNR(s), beta's share of sigma_t^2
        log_beta = log_variance_t + share.log()
        log_tilde = log_beta - (log_variance_t - log_variance_s)
        # at i = 1 x_s has no noise, so that beta is sigma_1^2, and later - 1 is 1
        log_beta = log_beta.where(i > 1, log_variance_s)
        return cls(log_tilde, log_beta - log_tilde, lambda_s.exp() * share)

    def like(self, x: Tensor) -> "ChainStep":
        """Return values (B,) as (B, 1, ...) of the device and type of ``x`` (B, ...)."""
        return ChainStep(*(per_image(value, x).to(x.device, x.dtype) for value in self))

    def divergence(self, x0: Tensor, x0_hat: Tensor, v: Tensor | float) -> Tensor:
        """Return KL(q(x_s|x_t, x_0) || p(x_s|x_t)), (B,), where i > 1; x_t itself cancels.

        With r = v log(beta / beta-tilde) it is (r + e^-r - 1 + e^-r (SNR(s) - SNR(t)) (x_0 - x0_hat)^2) / 2, summed.

        Args:
            x0: Images (B, ...).
            x0_hat: Their estimates, (B, ...).
            v: The fraction of the variance, (B, ...) or one for all.
        """
        r = v * self.log_ratio
        return (r + torch.expm1(-r) + torch.exp(-r) * self.fall * (x0 - x0_hat).square()).flatten(1).sum(1) / 2

    def decoder_nll(self, x0: Tensor, x0_hat: Tensor, v: Tensor | float, is_density: bool = False) -> Tensor:
        """Return -log p(x_0|x_1), (B,), where i = 1, of mean x0_hat; arguments as in :meth:`divergence`."""
        log_variance = self.log_tilde + v * self.log_ratio
        if is_density:
            half = (log_variance + (x0 - x0_hat).square() * torch.exp(-log_variance) + math.log(2 * math.pi)) / 2
            return half.expand_as(x0).flatten(1).sum(1)
        return -discretized_gaussian(x0, x0_hat, log_variance).flatten(1).sum(1)

    def optimal_v(self, variance: Tensor) -> Tensor:
        """Return the v of the optimal variance of a step, (B, 1, ...), where i > 1 (Bao et al. 2022, theorem 1).

        It is beta-tilde + c^2 ``variance`` for the mean's factor c of x_0, which is the variance of x_s given x_t, and
        c^2 = beta-tilde (SNR(s) - SNR(t)). So r of :meth:`divergence` is log(1 + (SNR(s) - SNR(t)) variance).

        Args:
            variance: That of a value of x_0 given x_t, (B, 1, ...).
        """
        return torch.log1p(self.fall * variance) / self.log_ratio

    def decoder_v(self, variance: Tensor) -> Tensor:
        """Return the v of -log p(x_0|x_1) for that ``variance``, (B, 1, ...), where i = 1."""
        return (variance.log() - self.log_tilde) / self.log_ratio


def discretized_gaussian(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return log P of each value of ``x``, one of 256 levels in [-1, 1], in nats (Ho et al. 2020 eq. 13).

    A level's probability is the Gaussian's mass within half a bin of it. The outermost two take the tails, so that the
    256 sum to 1. With F the normal distribution function and a > b the edges, of which those above the mean are
    mirrored to below, log(F(a) - F(b)) = log F(a) + log(1 - exp(log F(b) - log F(a))) does not underflow.

    Args:
        x: Images (B, ...).
        mean: (B, ...).
        log_variance: The logarithm of the variance, broadcast against the images.
    """
    centred, precision = x - mean, torch.exp(-log_variance / 2)
    above = (precision * (centred + HALF_BIN)).masked_fill(x > 1 - HALF_BIN, math.inf)
    below = (precision * (centred - HALF_BIN)).masked_fill(x < -1 + HALF_BIN, -math.inf)
    is_high = centred > 0
    log_a = torch.special.log_ndtr((-below).where(is_high, above))
    log_b = torch.special.log_ndtr((-above).where(is_high, below))
    return log_a + torch.log(-torch.expm1(log_b - log_a))


class VariationalBound(Described):
    """The variational bound on -log p(x_0), a sum over T steps (Ho et al. 2020 eq. 5).

    The prior is what samplers begin from, N(0, sigma_T^2), so that L_T = SNR(T) |x_0|^2 / 2. The decoder is the
    discretised Gaussian for 256 levels, so that the bound is in bits/dim and comparable with other models' on images
    that have these levels.

    The terms fall about as 1 / i, so that a sample takes the first steps all, and then one each of strata that grow
    geometrically; with 100 evaluations of 1,000 steps the first twenty are exact.

    Args:
        num_steps: T, at least 2.
        evaluations: How often the network is evaluated for an image: once for the decoder, and for a stratified sample
            of the other T - 1 steps, which makes the bound an unbiased estimate. None: T, all of them.
        thresholding: What is done to each estimate of x_0; Ho et al. clip to [-1, 1]. None: nothing.
        v: The variance where estimates have none, from beta-tilde, 0, to beta, 1. Neither suits all data. None: the
            optimal variance of a step that is the same for all values of an image (Bao et al. 2022), see
            :meth:`posterior_variance`; the denoiser must be differentiable, and each evaluation costs a gradient, too.
        is_density: For x_0 of any values, such as latents: p(x_0|x_1) is a Gaussian density, and the bound is on
            -log p(x_0). Otherwise x_0 has 256 levels, and the bound is on the logarithm of their probability.
    """

    def __init__(
        self,
        num_steps: int = 1000,
        evaluations: int | None = None,
        thresholding: Thresholding | None = None,
        v: float | None = 0.0,
        is_density: bool = False,
    ) -> None:
        check_count("num_steps", num_steps, at_least=2, hint="Ho et al. have 1000")
        check_count("evaluations", evaluations, at_least=2, at_most=num_steps, hint="None takes all steps")
        check_range("v", v, at_least=0, at_most=1, hint="None is the optimal variance")
        self.num_steps, self.thresholding, self.v, self.is_density = num_steps, thresholding, v, is_density
        self.evaluations = num_steps if evaluations is None else evaluations

    def terms(
        self, denoise: Denoiser, x0: Tensor, schedule: Schedule, *, generator: torch.Generator | None = None
    ) -> BoundTerms:
        """Return the terms for images ``x0`` (B, ...) of 256 levels in [-1, 1], in their type.

        Args:
            denoise, schedule, generator: See :meth:`Sampler.trajectory`; with ``v=None`` as in
                :meth:`~lit_generative.diffusion.flow_likelihood.FlowLikelihood.log_prob`.
            x0: The images; memory and time of one evaluation are those of a batch of these.
        """
        with torch.inference_mode(torch.is_inference_mode_enabled() and self.v is not None), torch.no_grad():
            x0 = x0.clone()
            i, counts = self._indices(x0, generator)
            times = (i / self.num_steps).to(x0.device, torch.promote_types(x0.dtype, torch.float32))
            steps = ChainStep.at(i, schedule, self.num_steps)
            nats = []
            for k, t in enumerate(times.unbind(1)):
                step = ChainStep(*(value[:, k] for value in steps)).like(x0)
                nats.append(self._term(denoise, x0, t, step, schedule, generator, is_first=k == 0))
            snr = schedule.exact_log_snr(torch.ones(())).exp().item()
            prior = snr / 2 * x0.square().flatten(1).sum(1)
            return BoundTerms(prior, nats[0], times[:, 1:], torch.stack(nats[1:], 1), counts.to(x0.device, x0.dtype))

    def _term(
        self,
        denoise: Denoiser,
        x0: Tensor,
        t: Tensor,
        step: ChainStep,
        schedule: Schedule,
        generator: torch.Generator | None,
        is_first: bool,
    ) -> Tensor:
        """Return L_0 or the L_{i-1} of each image's step, (B,)."""
        alpha, sigma = (per_image(level, x0).to(x0.dtype) for level in schedule(t))
        x_t = alpha * x0 + sigma * draw_like(x0, generator)
        best: Tensor | float
        if self.v is None:
            (x0_hat, v), variance = self.posterior_variance(denoise, x_t, t, schedule, generator)
            best = step.decoder_v(variance.clamp(min=LEAST_VARIANCE)) if is_first else step.optimal_v(variance)
        else:
            (x0_hat, v), best = denoise(x_t, t), self.v
        x0_hat = self.thresholding(x0_hat) if self.thresholding else x0_hat
        best = best if v is None else v
        return step.decoder_nll(x0, x0_hat, best, self.is_density) if is_first else step.divergence(x0, x0_hat, best)

    @staticmethod
    def posterior_variance(
        denoise: Denoiser, x_t: Tensor, t: Tensor, schedule: Schedule, generator: torch.Generator | None = None
    ) -> tuple[Estimate, Tensor]:
        """Return the estimate for ``x_t`` (B, ...) at ``t`` (B,), and the variance of x_0 given x_t, (B, 1, ...).

        By Tweedie's formula cov[x_0 | x_t] = sigma^2 / alpha dx0_hat / dx_t, of which this is the mean over an image's
        values, between 0 and the sigma^2 / alpha^2 of values that nothing else is known of, or 1, the largest of values
        in [-1, 1]. The trace is estimated from one vector of random signs (Hutchinson), so that the variance depends on
        x_t and chance, never on x_0, and the bound remains one. Bao et al.'s Gamma is its mean over the data.
        """
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x0_hat, v = denoise(x_t, t)
        z = torch.ones_like(x_t).copysign(draw_like(x_t, generator))
        (gradient,) = torch.autograd.grad(x0_hat, x_t, z)
        alpha, sigma = (per_image(level, x_t).to(x_t.dtype) for level in schedule(t))
        slope = per_image((z * gradient).flatten(1).mean(1), x_t)  # at most 1 / alpha
        variance = sigma.square() / alpha.clamp(min=1e-9) * slope.clamp(min=0)
        estimate = Estimate(x0_hat.detach(), None if v is None else v.detach())
        return estimate, variance.minimum((sigma / alpha.clamp(min=1e-9)).square()).clamp(max=1)

    def _indices(self, x0: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Draw each image's steps, (B, evaluations): 1, and one of each stratum; and the strata's sizes, (n,).

        Both are float64 on the CPU.
        """
        first = torch.tensor(strata(self.num_steps, self.evaluations - 1)).double()
        sizes = first.diff()
        u = draw_like(x0.new_empty(len(x0), len(sizes), dtype=torch.float32), generator, torch.rand).cpu().double()
        i = first[:-1] + (sizes * u).floor()
        return torch.cat([torch.ones(len(x0), 1).double(), i], 1), sizes


def strata(num_steps: int, count: int) -> list[int]:
    """Return where each of ``count`` strata of the steps 2, ..., T begins, and T + 1; they grow geometrically."""
    edges = [2]
    for left in range(count, 0, -1):
        growth = ((num_steps + 1) / edges[-1]) ** (1 / left)
        edges.append(max(edges[-1] + 1, round(edges[-1] * growth)))
    return edges
