"""The probability-flow ODE's likelihood, of data whose density is known."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from analytic import GaussianData, PlaneMixture
from torch import Tensor, nn
from torch.distributions import Normal

from lit_generative.description import describe, rebuild
from lit_generative.diffusion import Estimate
from lit_generative.diffusion.flow_likelihood import FlowLikelihood
from lit_generative.diffusion.likelihood import VariationalBound
from lit_generative.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearBetaSchedule,
    RectifiedFlowSchedule,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
    ZeroTerminalSNRSchedule,
)
from lit_generative.diffusion.spacings import ChurnedSpacing, KarrasSpacing, LogSNRSpacing, Spacing, UniformSpacing
from lit_generative.eight_bit import BIN, bits_per_dim

ISOTROPIC = GaussianData([0.3, -0.2, 0.1], torch.eye(3).mul(0.04).tolist())
CORRELATED = GaussianData([0.1, -0.2], [[0.25, 0.15], [0.15, 0.25]])
MIXTURE = PlaneMixture([[-0.6, -0.3], [0.5, 0.2], [0.1, 0.8]], std=0.2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(n: int, dims: int) -> Tensor:
    """Return points where the data are, roughly."""
    return 0.25 * torch.randn(n, dims, 1, 1, generator=seeded(5), dtype=torch.float64)


def flow_of_isotropic(x0: Tensor, likelihood: FlowLikelihood) -> Tensor:
    """Return log p of the exact flow, an affine map, from the prior at s_max, which lacks the data's own moments."""
    low, high = likelihood.sigma_min, likelihood.sigma_max
    stretch = math.sqrt((0.04 + high**2) / (0.04 + low**2))
    top = ISOTROPIC.mean + stretch * (x0.flatten(1) - ISOTROPIC.mean)
    return Normal(0.0, high).log_prob(top).sum(1) + 3 * math.log(stretch)


SCHEDULES = [
    LinearBetaSchedule(),
    CosineSchedule(),
    SigmoidSchedule(),
    RectifiedFlowSchedule(),
    EDMSchedule(),
    ShiftedSchedule(CosineSchedule(), 32),
    ZeroTerminalSNRSchedule(LinearBetaSchedule()),
]


def name(schedule: Schedule) -> str:
    return type(schedule).__name__


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("spacing", [None, KarrasSpacing(t_min=0)], ids=["LogSNRSpacing", "KarrasSpacing"])
def test_of_gaussian_data_it_is_exact(schedule: Schedule, spacing: KarrasSpacing | None) -> None:
    """With random signs the trace of an isotropic denoiser's Jacobian is exact, so that only the solver errs."""
    likelihood, x0 = FlowLikelihood(400, spacing=spacing, dequantise=False), points(16, 3)
    log_p = likelihood.log_prob(ISOTROPIC.denoiser(schedule), x0, schedule)
    torch.testing.assert_close(log_p, flow_of_isotropic(x0, likelihood), rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(log_p, ISOTROPIC.log_prob(x0, noise=0.0023), rtol=0, atol=0.03)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize(
    "spacing", [None, LogSNRSpacing(), KarrasSpacing(), UniformSpacing()], ids=lambda s: type(s).__name__
)
def test_its_levels_go_from_one_to_one_on_every_schedule(spacing: Spacing | None, schedule: Schedule) -> None:
    levels = FlowLikelihood(40, spacing=spacing).levels(schedule)
    ratios = [level.sigma / level.alpha for level in levels]
    assert len(ratios) <= 41
    assert all(later < earlier for earlier, later in pairwise(ratios))
    assert ratios[0] == pytest.approx(80, rel=2e-3)
    assert ratios[-1] == pytest.approx(0.00226, rel=2e-3)


def test_a_schedule_that_ends_above_is_taken_as_far_as_it_goes() -> None:
    schedule = EDMSchedule(sigma_min=0.05, sigma_max=20.0)
    levels = FlowLikelihood(40).levels(schedule)
    assert levels[0].sigma == pytest.approx(20, rel=1e-3)
    assert levels[-1].sigma == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_a_pixel_of_probability_1_costs_the_same_on_every_schedule(schedule: Schedule) -> None:
    """0.25 bits, the least that dequantised data can cost: of normal noise of the variance of that over a bin."""
    x0 = torch.full((1, 1, 128, 128), -1.0, dtype=torch.float64)
    black = lambda x, t: Estimate(x * 0 - 1)  # noqa: E731  # the best denoiser of images that are all black
    log_p = FlowLikelihood(50).log_prob(black, x0, schedule, generator=seeded())
    bits = bits_per_dim(-log_p, 128**2).item()
    assert bits == pytest.approx(math.log2(2 * math.pi * math.e / 12) / 2, abs=0.02)


@pytest.mark.parametrize("schedule", [CosineSchedule(), EDMSchedule()], ids=name)
@pytest.mark.parametrize("karras", [False, True], ids=["LogSNRSpacing", "KarrasSpacing"])
def test_its_error_is_of_second_order(schedule: Schedule, karras: bool) -> None:
    x0, denoise = points(16, 3), ISOTROPIC.denoiser(schedule)
    errors = []
    for steps in (40, 80, 160):
        spacing = KarrasSpacing(sigma_min=BIN / 12**0.5, t_min=0) if karras else None
        likelihood = FlowLikelihood(steps, spacing=spacing, dequantise=False)
        error = likelihood.log_prob(denoise, x0, schedule) - flow_of_isotropic(x0, likelihood)
        errors.append(error.square().mean().sqrt().item())
    assert errors[0] < 0.15
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.2), errors


@pytest.mark.parametrize("data", [MIXTURE, CORRELATED], ids=["mixture", "correlated"])
def test_hutchinson_s_estimator_finds_the_density_of_data_with_correlations(data: PlaneMixture) -> None:
    schedule, x0 = CosineSchedule(), points(8, 2)
    one, many = (FlowLikelihood(150, probes, dequantise=False, sigma_max=1000.0) for probes in (1, 10))
    exact = data.log_prob(x0, noise=one.sigma_min)  # the prior is the data's, to 1e-3
    repeated = x0.repeat(64, 1, 1, 1)
    errors = [
        likelihood.log_prob(data.denoiser(schedule), repeated, schedule, generator=seeded()).view(64, 8) - exact
        for likelihood in (one, many)
    ]
    for error in errors:  # unbiased, but for the solver
        assert (error.mean(0).abs() < 4 * error.std(0) / 64**0.5 + 0.01).all()
    ratio = errors[0].var(0).mean() / errors[1].var(0).mean()
    assert ratio.item() == pytest.approx(10, rel=0.3)


def test_dequantised_it_is_the_probability_of_bins() -> None:
    schedule, x0 = CosineSchedule(), torch.linspace(-1, 1, 256)[100:200:10].double().view(10, 1, 1, 1)
    data, likelihood = GaussianData([0.1], [[0.04]]), FlowLikelihood(150)
    log_p = torch.stack(
        [likelihood.log_prob(data.denoiser(schedule), x0, schedule, generator=seeded(seed)) for seed in range(8)]
    ).mean(0)
    normal = Normal(0.1, math.sqrt(0.04 + likelihood.sigma_min**2))
    expected = (normal.cdf(x0 + BIN / 2) - normal.cdf(x0 - BIN / 2)).log().flatten()
    torch.testing.assert_close(log_p, expected, rtol=0, atol=0.03)


def test_it_agrees_with_the_variational_bound_where_that_is_tight() -> None:
    schedule, data = CosineSchedule(), GaussianData([0.1], [[0.04]])
    x = Normal(0.1, 0.2).icdf((torch.arange(500).double() + 0.5) / 500)
    x0 = (((x + 1) / BIN).round() * BIN - 1).view(-1, 1, 1, 1)
    bound = VariationalBound(v=1.0).terms(data.denoiser(schedule), x0, schedule, generator=seeded()).total.mean()
    flow = -FlowLikelihood().log_prob(data.denoiser(schedule), x0, schedule, generator=seeded()).mean()
    entropy = -math.log(BIN / 0.2) + math.log(2 * math.pi * math.e) / 2
    assert flow.item() == pytest.approx(entropy, abs=0.02)
    assert bound.item() == pytest.approx(entropy, abs=0.02)


def test_dequantisation_noise_stays_in_the_bin() -> None:
    seen: list[Tensor] = []

    def denoise(x_t: Tensor, t: Tensor) -> Estimate:
        seen.append(x_t)
        return Estimate(x_t / 2)

    schedule = EDMSchedule()  # alpha is 1
    x0 = torch.zeros(1, 1, 64, 64)
    FlowLikelihood(1).log_prob(denoise, x0, schedule, generator=seeded())
    assert seen[0].abs().max().item() == pytest.approx(BIN / 2, rel=0.01)
    assert seen[0].std().item() == pytest.approx(BIN / math.sqrt(12), rel=0.05)


def test_it_works_where_autograd_is_off_and_leaves_no_gradients() -> None:
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 3, padding=1))
    likelihood, x0 = FlowLikelihood(4, probes=2), torch.rand(3, 2, 5, 5) * 2 - 1

    def log_prob(x0: Tensor) -> Tensor:
        return likelihood.log_prob(lambda x, t: Estimate(network(x)), x0, CosineSchedule(), generator=seeded(1))

    expected, before = log_prob(x0), x0.clone()
    with torch.no_grad():
        assert torch.equal(log_prob(x0), expected)
    with torch.inference_mode():
        assert torch.equal(log_prob(x0.clone()), expected)
    assert not expected.requires_grad
    assert expected.dtype == torch.float32
    assert torch.equal(x0, before)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_learned_variance_has_no_part_in_it() -> None:
    schedule, x0 = CosineSchedule(), points(4, 3)
    denoise = ISOTROPIC.denoiser(schedule)
    a, b = (
        FlowLikelihood(5).log_prob(estimate, x0, schedule, generator=seeded())
        for estimate in (denoise, lambda x, t: denoise(x, t)._replace(v=torch.zeros_like(x)))
    )
    assert torch.equal(a, b)


def test_a_flow_likelihood_is_rebuilt_from_its_description() -> None:
    again = rebuild(describe(FlowLikelihood(12, 3, KarrasSpacing(5.0), dequantise=False, sigma_min=0.01)))
    assert again.sigma_min == 0.01
    assert (again.steps, again.probes, again.spacing.rho, again.dequantise) == (12, 3, 5.0, False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FlowLikelihood(0), r"steps=0.*at least 1"),
        (lambda: FlowLikelihood(probes=0), r"probes=0.*at least 1"),
        (lambda: FlowLikelihood(sigma_min=0.0), r"sigma_min=0.0.*\(0, 80\)"),
        (lambda: FlowLikelihood(sigma_min=2.0, sigma_max=1.0), r"sigma_min=2.0"),
        (lambda: FlowLikelihood(spacing=ChurnedSpacing(KarrasSpacing())), r"spacing=ChurnedSpacing: .*plain"),
    ],
)
def test_impossible_flow_likelihoods_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
