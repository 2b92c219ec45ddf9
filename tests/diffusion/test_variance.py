"""Learned variance: the hybrid loss's term, and sampling with it against diffusers'."""

import diffusers
import pytest
import torch
from analytic import MixtureData
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from lit_generative.description import describe, rebuild
from lit_generative.diffusion import Estimate
from lit_generative.diffusion.likelihood import VariationalBound
from lit_generative.diffusion.samplers import DDIM, AncestralSampler, DPMSolverPP2M, EulerSampler, HeunSampler, Sampler
from lit_generative.diffusion.schedules import CosineSchedule, LinearBetaSchedule, per_image, step_at
from lit_generative.diffusion.spacings import LeadingSpacing
from lit_generative.diffusion.thresholding import StaticThresholding
from lit_generative.diffusion.variance import LearnedVariance

SCHEDULE = LinearBetaSchedule()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(x: Tensor, t: float) -> Tensor:
    """Put out noise and raw variance for x (B, 1, H, W), (B, 2, H, W), smooth in both; raw goes a little beyond 1."""
    return torch.cat([x * (0.2 + 0.75 * t) + 0.15 * torch.sin(3 * x + 2 * t), 1.1 * torch.cos(2 * x - t)], 1)


def denoise(x_t: Tensor, t: Tensor) -> Estimate:
    eps, v = LearnedVariance().split(network(x_t, t[0].item()))
    alpha, sigma = (per_image(level, x_t) for level in SCHEDULE(t))
    return Estimate((x_t - sigma * eps) / alpha, v)


def test_split() -> None:
    output = torch.randn(2, 6, 3, 3)
    prediction, v = LearnedVariance().split(output.bfloat16())
    assert torch.equal(prediction, output.bfloat16()[:, :3])
    assert v.dtype == torch.float32
    torch.testing.assert_close(2 * v - 1, output.bfloat16()[:, 3:].float())
    with pytest.raises(ValueError, match=r"3 channels.*twice"):
        LearnedVariance().split(output[:, :3])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("thresholding", [None, StaticThresholding(1.0)])
def test_ancestral_steps_with_learned_variance_are_those_of_diffusers(
    steps: int, thresholding: StaticThresholding | None
) -> None:
    scheduler = diffusers.DDPMScheduler(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        variance_type="learned_range",
        clip_sample=thresholding is not None,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps)
    x_T = torch.randn(2, 1, 8, 8, generator=seeded())
    x, theirs, noise = x_T, [], seeded(1)
    for k in scheduler.timesteps:
        x = scheduler.step(network(x, (k.item() + 1) / 1000), k, x, generator=noise).prev_sample
        theirs.append(x)
    sampler = AncestralSampler(steps, LeadingSpacing(), thresholding, v=None)
    _, *ours = sampler.trajectory(denoise, x_T, SCHEDULE, generator=seeded(1))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_constant_learned_variance_is_the_fixed_one() -> None:
    schedule, x_T = CosineSchedule(), torch.randn(8, 1, 1, 1, generator=seeded())
    known = MixtureData((-0.8, 0.4), 0.1, 0.3).denoiser(schedule)
    for v in (0.0, 0.4, 1.0):

        def learnt(x: Tensor, t: Tensor, v: float = v) -> Estimate:
            return Estimate(known(x, t).x0, torch.full_like(x, v))

        learned = AncestralSampler(30, v=None).sample(learnt, x_T, schedule, generator=seeded(1))
        fixed = AncestralSampler(30, v=v).sample(known, x_T, schedule, generator=seeded(1))
        torch.testing.assert_close(learned, fixed, rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", [AncestralSampler(9), DDIM(9), DPMSolverPP2M(9), EulerSampler(9), HeunSampler(9)])
def test_samplers_of_fixed_variance_leave_a_learned_one_alone(sampler: Sampler) -> None:
    x_T = torch.randn(2, 1, 4, 4, generator=seeded())
    a, b = (
        sampler.sample(estimate, x_T, SCHEDULE, generator=seeded(1))
        for estimate in (denoise, lambda x, t: Estimate(denoise(x, t).x0))
    )
    assert torch.equal(a, b)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_missing_variance_is_reported(steps: int) -> None:
    with pytest.raises(ValueError, match=r"v=None: .*not learned.*v=0"):
        AncestralSampler(steps, v=None).sample(lambda x, t: Estimate(x), torch.randn(1, 1, 2, 2), SCHEDULE)


def test_terms_are_those_of_the_bound_whatever_the_batch_mixes() -> None:
    x0 = torch.linspace(-1, 1, 256)[torch.randint(256, (5, 1, 4, 4), generator=seeded())]
    calls: list[tuple[Tensor, Estimate]] = []

    def recorded(x_t: Tensor, t: Tensor) -> Estimate:
        calls.append((t, denoise(x_t, t)))
        return calls[-1][1]

    terms = VariationalBound(1000).terms(recorded, x0, SCHEDULE, generator=seeded(1))
    expected = torch.cat([terms.decoder[:, None], terms.steps], 1)
    chosen = [0, 1, 2, 300, 999]
    t = torch.stack([calls[k][0][b] for b, k in enumerate(chosen)])
    x0_hat, v = (torch.stack([calls[k][1][part][b] for b, k in enumerate(chosen)]) for part in range(2))
    for offset in (0.0, -4e-4, -9e-4):  # times in between belong to the step that leads over them
        found = LearnedVariance().bound_term(x0, x0_hat, v, (t + offset).clamp(max=1), SCHEDULE)
        torch.testing.assert_close(found, expected[torch.arange(5), torch.tensor(chosen)], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_steps", [10, 1000, 4000])
def test_each_step_is_as_likely_as_any_other_at_uniform_times(num_steps: int) -> None:
    t = (torch.arange(400 * num_steps) + 0.5).double() / (400 * num_steps)
    counts = step_at(t, num_steps).long().bincount()[1:]
    assert len(counts) == num_steps
    assert (counts - 400).abs().max() <= 4  # a hundredth of a step: float32's rounding is made up for
    grid = torch.arange(1, num_steps + 1)
    assert torch.equal(step_at((grid.float() / num_steps), num_steps), grid.double())


def test_the_hybrid_loss_s_term_is_the_bound_at_uniform_times() -> None:
    """T times its mean over uniform times is the bound but for the prior, the first and last steps included."""
    schedule, learned = CosineSchedule(), LearnedVariance(num_steps=4)
    x0 = torch.full((40_000, 1, 1, 1), 65 / 127.5 - 1)
    t = (torch.arange(len(x0)) + 0.5) / len(x0)
    term = learned.bound_term(x0, x0 + 0.02, torch.full_like(x0, 0.4), t, schedule).mean() * 4
    terms = VariationalBound(4, v=0.4).terms(lambda x, t: Estimate(x0[:1] + 0.02), x0[:1], schedule)
    assert term.item() == pytest.approx((terms.decoder + terms.steps.sum(1)).item(), rel=1e-3)


def test_the_gradient_reaches_v_but_not_the_mean_and_is_that_of_the_divergence() -> None:
    x0 = torch.linspace(-1, 1, 8).double().view(4, 2, 1, 1).round(decimals=1)
    x0_hat, v = (x0 + 0.05).requires_grad_(), torch.full_like(x0, 0.3).requires_grad_()
    t = torch.tensor([0.001, 0.002, 0.5, 1.0]).double()
    LearnedVariance().bound_term(x0, x0_hat, v, t, SCHEDULE).sum().backward()
    assert x0_hat.grad is None
    assert v.grad.isfinite().all()
    assert (v.grad != 0).all()

    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    beta, before, alpha_bar = betas[499], (1 - betas[:499]).prod(), (1 - betas[:500]).prod()
    tilde = beta * (1 - before) / (1 - alpha_bar)
    w = torch.full((2, 1, 1), 0.3).double().requires_grad_()
    gap = before.sqrt() * beta / (1 - alpha_bar) * (x0 - x0_hat.detach())[2]
    std = torch.exp((w * beta.log() + (1 - w) * tilde.log()) / 2)
    kl_divergence(Normal(gap, tilde.sqrt()), Normal(torch.zeros_like(gap), std)).sum().backward()
    torch.testing.assert_close(v.grad[2], w.grad, rtol=1e-4, atol=0)


def test_the_best_v_is_the_error_s_own_variance() -> None:
    """Descent on the term finds Sigma = beta-tilde + the mean's squared error, where the KL is least."""
    x0 = torch.zeros(1, 1, 1, 1).double()
    x0_hat, t, v = x0 + 0.02, torch.tensor([0.02]), torch.full_like(x0, 0.5).requires_grad_()
    optimizer = torch.optim.LBFGS([v], lr=0.5, max_iter=100, tolerance_grad=1e-10, tolerance_change=1e-14)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = LearnedVariance(num_steps=100).bound_term(x0, x0_hat, v, t, CosineSchedule()).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        (a.item(), b.item()) for a, b in (CosineSchedule()(t), CosineSchedule()(t - 0.01))
    )
    beta = sigma_t**2 - (alpha_t / alpha_s * sigma_s) ** 2
    tilde = beta * (sigma_s / sigma_t) ** 2
    error = (alpha_s * beta / sigma_t**2 * 0.02) ** 2
    assert (beta / tilde) ** v.item() == pytest.approx((tilde + error) / tilde, rel=1e-4)


def test_a_learned_variance_is_rebuilt_and_checked() -> None:
    again = rebuild(describe(LearnedVariance(2e-3, 4000)))
    assert (again.weight, again.num_steps) == (2e-3, 4000)
    with pytest.raises(ValueError, match=r"weight=0"):
        LearnedVariance(0)
    with pytest.raises(ValueError, match=r"num_steps=1"):
        LearnedVariance(num_steps=1)
