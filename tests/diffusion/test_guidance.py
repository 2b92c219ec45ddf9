"""Guidance as an object: two denoisers made one, counted, and limited to an interval."""

from collections.abc import Callable

import pytest
import torch
from analytic import GaussianData
from torch import Tensor, nn

from lit_generative.description import describe, rebuild
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    AutoGuidance,
    ClassifierFree,
    Combination,
    CosineSchedule,
    Denoiser,
    DPMSolverPP2M,
    Estimate,
    Guidance,
    HeunSampler,
    KarrasSpacing,
    LogSNRSpacing,
    ProjectedCombination,
    ResampledSpacing,
    RescaledCombination,
    Sampler,
    UniformSpacing,
)


def constant(value: float, calls: list[Tensor], v: Tensor | None = None) -> Denoiser:
    def denoise(x_t: Tensor, t: Tensor) -> Estimate:
        calls.append(t)
        return Estimate(torch.full_like(x_t, value), v)

    return denoise


def fixed(value: Tensor) -> Denoiser:
    return lambda x_t, t: Estimate(value)


@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescaled_guidance_has_the_contrast_of_the_better_estimate(phi: float) -> None:
    """Lin et al. 2024, eq. 14 to 16."""
    c, u = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = ClassifierFree(5.0, combination=RescaledCombination(phi)).wrap(fixed(c), fixed(u))(c, torch.ones(3)).x0
    g = u + 5 * (c - u)
    spread = [x.flatten(1).std(1)[:, None, None, None] for x in (c, g)]
    torch.testing.assert_close(found, phi * g * spread[0] / spread[1] + (1 - phi) * g)
    if phi == 1:
        torch.testing.assert_close(found.flatten(1).std(1), c.flatten(1).std(1))
    plain = torch.zeros(3, 1, 8, 8)
    assert (
        ClassifierFree(5.0, combination=RescaledCombination())
        .wrap(fixed(plain), fixed(plain))(plain, torch.ones(3))
        .x0.equal(plain)
    )


def test_projected_guidance_leaves_the_part_along_the_estimate_out() -> None:
    c, u = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    t = torch.ones(3)

    def guided(**options: float | None) -> Tensor:
        combination = ProjectedCombination(**({"momentum": 0.0} | options))
        return ClassifierFree(4.0, combination=combination).wrap(fixed(c), fixed(u))(c, t).x0

    torch.testing.assert_close(guided(eta=1.0), u + 4 * (c - u))
    added = guided() - c
    assert (added * c).flatten(1).sum(1).abs().max() < 1e-3
    across = (c - u) - ((c - u) * c).sum((1, 2, 3), keepdim=True) / (c * c).sum((1, 2, 3), keepdim=True) * c
    torch.testing.assert_close(added, 3 * across)
    short = (guided(eta=1.0, norm_threshold=2.0) - c).flatten(1).norm(dim=1)
    torch.testing.assert_close(short, torch.full((3,), 6.0))
    torch.testing.assert_close(guided(eta=1.0, norm_threshold=1e6), guided(eta=1.0))


def test_projected_guidance_remembers_one_run() -> None:
    """m <- difference + momentum m; a run begins anew where the time goes up."""
    values = iter(torch.tensor([1.0, 2.0, 4.0, 1.0, 8.0]))
    c = torch.zeros(2, 1, 2, 2)
    combination = ProjectedCombination(eta=1.0, momentum=-0.5)
    guided = ClassifierFree(2.0, combination=combination).wrap(
        fixed(c), lambda x_t, t: Estimate(torch.full_like(x_t, -next(values).item()))
    )
    found = [guided(c, torch.full((2,), t)).x0.mean().item() for t in (1.0, 0.8, 0.8, 0.9, 0.1)]
    assert found == pytest.approx([1, 2 - 0.5, 4 - 0.75, 1, 8 - 0.5])
    again = ClassifierFree(2.0, combination=combination).wrap(fixed(c), fixed(c - 3))
    assert again(c, torch.full((2,), 0.05)).x0.mean().item() == pytest.approx(3)  # a run of its own


@pytest.mark.parametrize("combination", [RescaledCombination(0.5), ProjectedCombination(0.1, 3.0, -0.4)])
def test_combinations_keep_the_interval_and_are_described(combination: Combination) -> None:
    c, u = torch.randn(2, 4, 1, 3, 3)
    guidance = AutoGuidance(3.0, (0.25, 0.75), combination=combination)
    x0 = guidance.wrap(fixed(c), fixed(u))(c, torch.tensor([0.1, 0.25, 0.5, 0.9])).x0
    torch.testing.assert_close(x0[[0, 1, 3]], c[[0, 1, 3]])
    assert not torch.allclose(x0[2], c[2], atol=1e-3)
    again = rebuild(describe(guidance)).combination
    assert describe(again) == describe(combination)
    assert guidance.stamp["guidance"]["init_args"]["combination"] == describe(combination)


def test_impossible_combinations_are_refused() -> None:
    for make, message in (
        (lambda: RescaledCombination(1.5), r"phi=1.5: .*\[0, 1\]"),
        (lambda: ProjectedCombination(eta=-0.1), "eta=-0.1: it must be at least 0"),
        (lambda: ProjectedCombination(norm_threshold=0.0), "norm_threshold=0.0: it must be positive"),
        (lambda: ProjectedCombination(momentum=-1.0), r"momentum=-1.0: .*\(-1, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 0.2), (1.0, 0.5), (3.0, 1.1)])
def test_guidance_extrapolates_from_the_worse_estimate(scale: float, expected: float) -> None:
    x, t, v = torch.randn(2, 1, 3, 3), torch.full((2,), 0.5), torch.rand(2, 1, 3, 3)
    guided = ClassifierFree(scale).wrap(constant(0.5, [], v), constant(0.2, [], torch.zeros(())))
    torch.testing.assert_close(guided(x, t).x0, torch.full_like(x, expected))
    assert guided(x, t).v is v  # the variance is not guided


def test_scale_1_costs_one_evaluation() -> None:
    calls: list[Tensor] = []
    guidance = ClassifierFree(1.0)
    guidance.wrap(constant(0.5, []), constant(0.2, calls))(torch.randn(2, 1, 3, 3), torch.ones(2))
    assert not calls
    assert not guidance.is_active
    assert guidance.evaluations([0.5, 1.0]) == 0


def test_guidance_is_limited_to_its_interval() -> None:
    calls: list[Tensor] = []
    guided = ClassifierFree(3.0, interval=(0.25, 0.75)).wrap(constant(0.5, []), constant(0.2, calls))
    x = torch.zeros(4, 1, 1, 1)
    mixed = guided(x, torch.tensor([0.1, 0.25, 0.5, 0.9])).x0.flatten()
    torch.testing.assert_close(mixed, torch.tensor([0.5, 0.5, 1.1, 0.5]))
    calls.clear()
    DDIM(8).sample(guided, x, CosineSchedule())
    assert [t[0].item() for t in calls] == [0.75, 0.625, 0.5, 0.375]


@pytest.mark.parametrize("interval", [None, (0.0, 0.75), (0.2, 0.95), (0.95, 1.0)], ids=str)
@pytest.mark.parametrize(
    "sampler",
    [
        DDIM(20),
        AncestralSampler(6, ResampledSpacing(UniformSpacing(), jump=2, passes=3)),
        DPMSolverPP2M(15, LogSNRSpacing()),
        HeunSampler(9, KarrasSpacing()),
        HeunSampler(20, UniformSpacing()),
    ],
    ids=["ddim", "resampled", "2m", "heun", "heun-uniform"],
)
def test_evaluations_are_known_beforehand(sampler: Sampler, interval: tuple[float, float] | None) -> None:
    calls: list[Tensor] = []
    guidance, schedule = ClassifierFree(2.0, interval), CosineSchedule()
    guided = guidance.wrap(constant(0.5, []), constant(0.2, calls))
    sampler.sample(guided, torch.zeros(1, 1, 1, 1), schedule)
    assert guidance.evaluations(sampler.evaluated_at(schedule)) == len(calls)


def test_guided_gaussians_have_the_mean_of_the_product() -> None:
    """Where conditional and unconditional differ in mean alone, guidance moves the mean by scale times as much."""
    schedule, x_T = CosineSchedule(), torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(0)).double()
    near, far = (GaussianData([mean], [[0.04]]).denoiser(schedule) for mean in (0.1, 0.3))
    x = DPMSolverPP2M(40).sample(ClassifierFree(2.0).wrap(far, near), x_T, schedule)
    assert x.mean().item() == pytest.approx(0.5, abs=0.01)
    assert x.std().item() == pytest.approx(0.2, rel=0.05)


def test_a_users_guidance_combines_otherwise() -> None:
    class Clipped(ClassifierFree):
        def combine(self, better: Tensor, worse: Tensor, scale: float | Tensor) -> Tensor:
            return super().combine(better, worse, scale).clamp(-1, 1)

    x, t = torch.randn(2, 1, 3, 3), torch.full((2,), 0.5)
    guided = Clipped(3.0).wrap(constant(0.5, []), constant(0.2, []))
    assert torch.equal(guided(x, t).x0, torch.ones_like(x))


def test_labels_are_dropped_at_their_share() -> None:
    y = torch.arange(4000) % 10
    labels = ClassifierFree(2.0, label_dropout=0.3).training_labels(y, 10)
    is_dropped = labels == 10
    assert is_dropped.float().mean().item() == pytest.approx(0.3, abs=0.03)  # 4 standard deviations
    assert torch.equal(labels[~is_dropped], y[~is_dropped])
    assert torch.equal(AutoGuidance(2.0).training_labels(y, 10), y)


@pytest.mark.parametrize(("total", "kept_at"), [(1000, 500), (10_000, 1000), (400, 0)])
def test_the_state_of_a_short_training_is_kept_after_the_least_images(total: int, kept_at: int) -> None:
    guidance, network = AutoGuidance(2.0, keep_at=0.1, least_images=500), nn.Linear(1, 1)
    guidance.prepare(network, None)
    for tenth in range(1, 11):
        guidance.observe(network, tenth / 10, total * tenth // 10)
    assert int(guidance.kept_at) == kept_at
    assert guidance.is_active == (kept_at > 0)


def test_a_state_is_kept_once_after_its_share_of_the_training() -> None:
    guidance, network = AutoGuidance(2.0, keep_at=0.3), nn.Linear(1, 1)
    guidance.prepare(network, None)
    found = []
    for share in (0.1, 0.29, 0.3, 0.9):
        nn.init.constant_(network.weight, share)
        guidance.observe(network, share, int(1000 * share))
        found.append((guidance.is_active, int(guidance.kept_at)))
    assert found == [(False, 0), (False, 0), (True, 300), (True, 300)]
    guide, y = guidance.worse(network, None, 0)
    assert isinstance(guide, nn.Linear)
    assert guide.weight.item() == pytest.approx(0.3)
    assert y is None


@pytest.mark.parametrize("guidance", [ClassifierFree(2.0, (0.2, 0.9), 0.2), AutoGuidance(1.5, None, 0.3)])
def test_guidance_is_rebuilt_from_its_description(guidance: Guidance) -> None:
    again = rebuild(describe(guidance))
    assert describe(again) == describe(guidance)
    assert type(again) is type(guidance)
    assert (again.scale, again.interval) == (guidance.scale, guidance.interval)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassifierFree(-1), r"scale=-1: it must be at least 0; 1 is no guidance"),
        (lambda: AutoGuidance(2, (0.5, 0.2)), r"interval=\(0.5, 0.2\): it must be two rising times"),
        (lambda: ClassifierFree(2, label_dropout=1.0), r"label_dropout=1\.0: it must be in \(0, 1\)"),
        (lambda: ClassifierFree(2, label_dropout=0.0), r"label_dropout=0\.0: .*guidance needs some"),
        (lambda: AutoGuidance(2, keep_at=0.0), r"keep_at=0\.0: it must be in \(0, 1\]; it is a share of the training"),
        (lambda: AutoGuidance(2, least_images=-1), "least_images=-1: "),
        (lambda: AutoGuidance(2, keep_at=14000), r"keep_at=14000: .*such as 0\.1"),
        (lambda: ClassifierFree(2).check_condition(None), r"the model has no labels; set num_classes"),
        (lambda: ClassifierFree(2).worse(nn.Identity(), None, 0), r"the model has no labels; set num_classes"),
    ],
)
def test_impossible_guidance_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
