"""Samplers on data whose best denoiser is known: distributions, orders, and what they declare of themselves."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from analytic import GaussianData, MixtureData
from torch import Tensor

from lit_generative.description import describe, rebuild
from lit_generative.diffusion import Estimate
from lit_generative.diffusion.samplers import (
    DDIM,
    AncestralSampler,
    DPMSolverPP2M,
    EulerSampler,
    HeunSampler,
    Sampler,
    SamplingState,
)
from lit_generative.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearBetaSchedule,
    NoiseLevel,
    RectifiedFlowSchedule,
    Schedule,
)
from lit_generative.diffusion.spacings import (
    ChurnedSpacing,
    KarrasSpacing,
    LogSNRSpacing,
    ResampledSpacing,
    Spacing,
    TrailingSpacing,
    UniformSpacing,
)
from lit_generative.diffusion.thresholding import DynamicThresholding, StaticThresholding

GAUSSIAN = GaussianData([0.3, -0.5], [[0.25, 0.1], [0.1, 0.09]])
MIXTURE = MixtureData((-0.8, 0.4), std=0.1, share=0.3)
SAMPLERS = [
    AncestralSampler(400),
    AncestralSampler(200, v=1.0),
    AncestralSampler(200, v=0.5),
    DDIM(100),
    DDIM(200, eta=0.5),
    DPMSolverPP2M(40),
    DPMSolverPP2M(100, LogSNRSpacing(), eta=1.0),
    DPMSolverPP2M(100, LogSNRSpacing(), eta=0.3),
    EulerSampler(100),
    HeunSampler(40),
    HeunSampler(60, ChurnedSpacing(KarrasSpacing(), inflation=1.0)),
]
IDS = [
    "DDPM", "DDPM-beta", "DDPM-half", "DDIM", "DDIM-eta", "DPM++", "DPM++SDE", "DPM++eta", "Euler", "Heun", "Heun-churn"
]  # fmt: skip


def noise(n: int, dim: int, sampler: Sampler, schedule: Schedule, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sigma = sampler.levels(schedule)[0].sigma
    return sigma * torch.randn(n, dim, 1, 1, generator=generator, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "schedule",
    [LinearBetaSchedule(), CosineSchedule(), RectifiedFlowSchedule(), EDMSchedule()],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)
def test_samples_of_a_gaussian_have_its_mean_and_covariance(sampler: Sampler, schedule: Schedule) -> None:
    x_T = noise(5000, 2, sampler, schedule)
    x = sampler.sample(GAUSSIAN.denoiser(schedule), x_T, schedule, generator=seeded(1)).flatten(1)
    torch.testing.assert_close(x.mean(0), GAUSSIAN.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(x.T.cov(), GAUSSIAN.covariance, rtol=0.1, atol=0)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)
def test_samples_of_a_mixture_are_of_its_components(sampler: Sampler) -> None:
    schedule = CosineSchedule()
    x_T = noise(5000, 1, sampler, schedule)
    x = sampler.sample(MIXTURE.denoiser(schedule), x_T, schedule, generator=seeded(1)).flatten()
    is_left = x < -0.2
    assert is_left.double().mean().item() == pytest.approx(0.3, abs=0.025)
    for component, mean in ((x[is_left], -0.8), (x[~is_left], 0.4)):
        assert component.mean().item() == pytest.approx(mean, abs=0.02)
        assert component.std().item() == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("v", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("k", [1000, 500, 20, 2, 1])
def test_ancestral_step_on_the_grid_is_ddpm_s_posterior(k: int, v: float) -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bars = torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)])
    beta, alpha_bar, before = betas[k - 1], alpha_bars[k], alpha_bars[k - 1]
    x_t, x0 = torch.randn(2, 5, 1, 4, 4, dtype=torch.float64, generator=seeded())
    t, s = LinearBetaSchedule().levels([k / 1000, (k - 1) / 1000])
    x_s = AncestralSampler(1000, v=v).step(x_t, t, s, SamplingState(lambda x, t: Estimate(x0), seeded(1)))

    mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x_t) / (1 - alpha_bar)  # Ho et al. eq. 7
    z = torch.randn(x_t.shape, dtype=torch.float64, generator=seeded(1)) if k > 1 else torch.zeros_like(x_t)
    variance = beta**v * ((1 - before) / (1 - alpha_bar) * beta) ** (1 - v)
    torch.testing.assert_close(x_s, mean + variance.sqrt() * z, rtol=0, atol=1e-4)


def test_ddim_with_eta_1_is_ancestral() -> None:
    schedule, spacing = LinearBetaSchedule(), TrailingSpacing()
    denoise, x_T = MIXTURE.denoiser(schedule), torch.randn(16, 1, 1, 1, generator=seeded())
    a, b = (
        torch.stack(list(sampler.trajectory(denoise, x_T, schedule, generator=seeded(1))))
        for sampler in (DDIM(100, spacing, eta=1.0), AncestralSampler(100, spacing))
    )
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_euler_is_ddim_at_the_same_times() -> None:
    schedule = RectifiedFlowSchedule()
    denoise, x_T = MIXTURE.denoiser(schedule), torch.randn(16, 1, 1, 1, generator=seeded())
    a, b = (sampler.sample(denoise, x_T, schedule) for sampler in (DDIM(20), EulerSampler(20, UniformSpacing())))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", [AncestralSampler(1), DDIM(1), DPMSolverPP2M(1), EulerSampler(1), HeunSampler(1)])
def test_one_step_returns_the_estimate_of_the_clean_image(sampler: Sampler) -> None:
    x_T, seen = torch.randn(3, 1, 4, 4), []

    def denoise(x: Tensor, t: Tensor) -> Estimate:
        seen.append((x, t))
        return Estimate(x.tanh())

    torch.testing.assert_close(sampler.sample(denoise, x_T, CosineSchedule()), x_T.tanh(), rtol=0, atol=1e-6)
    assert len(seen) == 1
    assert seen[0][1].shape == (3,)
    assert seen[0][1].dtype == torch.float32


@pytest.mark.parametrize(
    "spacing",
    [
        None,
        KarrasSpacing(),
        TrailingSpacing(),
        ChurnedSpacing(LogSNRSpacing()),
        ResampledSpacing(UniformSpacing(), jump=2, passes=3),
    ],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("schedule", [EDMSchedule(), CosineSchedule()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("cls", [AncestralSampler, DDIM, DPMSolverPP2M, EulerSampler, HeunSampler])
def test_evaluations_are_those_that_are_declared(
    cls: type[Sampler], schedule: Schedule, spacing: Spacing | None
) -> None:
    calls: list[float] = []

    def denoise(x: Tensor, t: Tensor) -> Estimate:
        calls.append(t[0].item())
        return Estimate(x)

    sampler = cls(7, spacing)
    *_, x = trajectory = list(sampler.trajectory(denoise, torch.randn(2, 1, 1, 1), schedule))
    assert len(calls) == sampler.evaluations
    assert calls == torch.tensor(sampler.evaluated_at(schedule)).tolist()  # in single precision
    assert len(trajectory) == 1 + 7 * sampler.spacing.passes
    assert torch.isfinite(x).all()


def test_a_multistep_solver_forgets_what_was_before_noise_was_put_back() -> None:
    seen: list[tuple[float, bool]] = []

    class Watched(DPMSolverPP2M):
        def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
            seen.append((t.t, state.earlier is not None))
            return super().step(x_t, t, s, state)

    sampler, schedule = Watched(4, ResampledSpacing(UniformSpacing(), jump=2, passes=2)), CosineSchedule()
    sampler.sample(MIXTURE.denoiser(schedule), torch.randn(2, 1, 1, 1), schedule)
    assert seen == [
        (1.0, False), (0.75, True), (1.0, False), (0.75, True),
        (0.5, True), (0.25, True), (0.5, False), (0.25, True),
    ]  # fmt: skip


@pytest.mark.parametrize("sampler", SAMPLERS, ids=IDS)
def test_a_generator_decides_everything(sampler: Sampler) -> None:
    denoise, x_T = MIXTURE.denoiser(CosineSchedule()), torch.randn(4, 1, 1, 1, generator=seeded())
    before, untouched = torch.get_rng_state(), x_T.clone()
    a, b, c = (sampler.sample(denoise, x_T, CosineSchedule(), generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert torch.equal(a, c) == sampler.is_deterministic
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(x_T, untouched)


def test_no_step_changes_an_image_that_was_handed_out() -> None:
    for sampler in (
        AncestralSampler(5),
        DDIM(5, eta=1.0),
        DPMSolverPP2M(5, eta=1.0),
        HeunSampler(5, ChurnedSpacing(KarrasSpacing())),
    ):
        kept = [
            (x, x.clone())
            for x in sampler.trajectory(MIXTURE.denoiser(CosineSchedule()), torch.randn(4, 1, 1, 1), CosineSchedule())
        ]
        assert all(torch.equal(x, copy) for x, copy in kept)


@pytest.mark.parametrize("cls", [AncestralSampler, DDIM, DPMSolverPP2M, EulerSampler, HeunSampler])
def test_thresholding_holds_for_every_estimate(cls: type[Sampler]) -> None:
    x_T = torch.randn(4, 1, 2, 2, generator=seeded())
    constant = torch.linspace(-3, 3, 4).view(1, 1, 2, 2).expand(4, 1, 2, 2)
    for thresholding, expected in ((StaticThresholding(1.0), constant.clamp(-1, 1)), (None, constant)):
        x = cls(10, thresholding=thresholding).sample(lambda x, t: Estimate(constant), x_T, CosineSchedule())
        torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)


def test_thresholding_wraps_a_denoiser_and_leaves_its_variance() -> None:
    x0, v, t = 3 * torch.randn(2, 1, 4, 4), torch.rand(2, 1, 4, 4), torch.rand(2)
    for thresholding in (StaticThresholding(0.5), DynamicThresholding(0.9)):
        wrapped = thresholding.wrap(lambda x, t: Estimate(x, v))(x0, t)
        assert torch.equal(wrapped.x0, thresholding(x0))
        assert wrapped.v is v


def test_dynamic_threshold_rescales_only_what_saturates() -> None:
    x0 = torch.tensor([[-4.0, -2.0, 0.0, 1.0, 2.0], [-0.5, -0.2, 0.0, 0.3, 0.9]]).view(2, 1, 1, 5)
    limited = DynamicThresholding(0.75)(x0)  # the first image's 75th percentile of |x_0| is 2
    torch.testing.assert_close(limited[0].flatten(), torch.tensor([-1.0, -1.0, 0.0, 0.5, 1.0]))
    assert torch.equal(limited[1], x0[1])
    assert DynamicThresholding()(x0.bfloat16()).dtype == torch.bfloat16


def test_a_user_s_sampler_is_one_method() -> None:
    class Fresh(Sampler):
        def step(self, x_t: Tensor, t: NoiseLevel, s: NoiseLevel, state: SamplingState) -> Tensor:
            return s.alpha * state.denoise(x_t, t).x0 + s.sigma * state.noise(x_t)

    schedule, sampler = CosineSchedule(), Fresh(50)
    x = sampler.sample(MIXTURE.denoiser(schedule), torch.randn(2000, 1, 1, 1), schedule, generator=seeded())
    assert ((x - MIXTURE.means).abs().amin(-1) < 0.5).all()
    assert (sampler.evaluations, sampler.is_deterministic) == (50, False)


class WithFloor(DDIM):
    """A user's sampler, of which not all arguments are the parent's."""

    def __init__(self, steps: int = 9, floor: float = 0.0, **options: Any) -> None:
        super().__init__(steps, **options)
        self.floor = floor


class Stubborn(DDIM):
    """A user's sampler, whose steps are its own affair."""

    def __init__(self, eta: float = 0.0) -> None:
        super().__init__(9, eta=eta)


@pytest.mark.parametrize(
    "sampler", [*SAMPLERS, WithFloor(30, floor=0.5, eta=0.1), WithFloor()], ids=[*IDS, "users", "users default"]
)
def test_the_same_sampler_with_other_steps_is_described_as_such(sampler: Sampler) -> None:
    before = (sampler.steps, describe(sampler))
    other = sampler.with_steps(5)
    assert (sampler.steps, describe(sampler)) == before
    assert type(other) is type(sampler)
    assert describe(other)["init_args"] == before[1]["init_args"] | {"steps": 5}
    again, x_T, schedule = rebuild(describe(other)), noise(4, 1, other, CosineSchedule()), CosineSchedule()
    a, b = (each.sample(MIXTURE.denoiser(schedule), x_T, schedule, generator=seeded(1)) for each in (other, again))
    assert torch.equal(a, b)
    assert len(list(other.trajectory(MIXTURE.denoiser(schedule), x_T, schedule))) == 6


def test_other_steps_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="Stubborn cannot be made with steps=5"):
        Stubborn().with_steps(5)
    with pytest.raises(ValueError, match="steps=0: it must be at least 1"):
        DDIM().with_steps(0)


def test_samplers_are_rebuilt_from_their_descriptions() -> None:
    sampler = DPMSolverPP2M(12, ChurnedSpacing(KarrasSpacing(5.0), 20.0), DynamicThresholding(0.9), eta=0.25)
    again = rebuild(describe(sampler))
    assert describe(again) == describe(sampler)
    assert (again.steps, again.eta, again.spacing.spacing.rho, again.thresholding.quantile) == (12, 0.25, 5.0, 0.9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIM(0), r"steps=0.*at least 1"),
        (lambda: DDIM(eta=1.5), r"eta=1.5.*\[0, 1\]"),
        (lambda: AncestralSampler(v=-1), r"v=-1.*\[0, 1\]"),
        (lambda: DPMSolverPP2M(eta=2), r"eta=2"),
        (lambda: StaticThresholding(0), r"bound=0.*positive"),
        (lambda: DynamicThresholding(0), r"quantile=0"),
    ],
)
def test_impossible_arguments_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
