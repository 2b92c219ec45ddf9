"""Every sampler with every schedule and spacing on a Gaussian with the moments of the training images, exactly."""

import math
from itertools import pairwise

import pytest
import torch
from analytic import GaussianData, ImageGaussian, image_gaussian

from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    ChurnedSpacing,
    CosineSchedule,
    DPMSolverPP2M,
    EDMSchedule,
    EulerSampler,
    HeunSampler,
    KarrasSpacing,
    LeadingSpacing,
    LinearBetaSchedule,
    LogSNRSpacing,
    RectifiedFlowSchedule,
    Sampler,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
    Spacing,
    TrailingSpacing,
    UniformSpacing,
    UniPC,
    ZeroTerminalSNRSchedule,
)
from lit_generative.diffusion.spacings import StraightOrKarrasSpacing

SCHEDULES = [
    LinearBetaSchedule(),
    CosineSchedule(),
    SigmoidSchedule(),
    EDMSchedule(),
    RectifiedFlowSchedule(),
    ShiftedSchedule(CosineSchedule(), 28),
    ShiftedSchedule(RectifiedFlowSchedule(), 128),
    ZeroTerminalSNRSchedule(LinearBetaSchedule()),
    ZeroTerminalSNRSchedule(RectifiedFlowSchedule()),
]
SAMPLERS = {
    "DDIM": DDIM,
    "Euler": EulerSampler,
    "Heun": HeunSampler,
    "2M": DPMSolverPP2M,
    "UniPC": UniPC,
    "UniPC-2": lambda steps, spacing: UniPC(steps, spacing, order=2),
    "2M SDE": lambda steps, spacing: DPMSolverPP2M(steps, spacing, eta=1.0),
    "DDIM half": lambda steps, spacing: DDIM(steps, spacing, eta=0.5),
    "ancestral": AncestralSampler,
    "ancestral beta": lambda steps, spacing: AncestralSampler(steps, spacing, v=1.0),
}
# the squared distance of the data themselves from their mean is 273; these are bounds on the covariances' part
FINE = {
    "Heun": 0.2,
    "2M": 0.12,
    "UniPC": 0.03,
    "UniPC-2": 0.07,
    "2M SDE": 0.9,
    "DDIM": 3.4,
    "Euler": 3.4,
    "DDIM half": 6.0,
    "ancestral": 11.0,
}
COARSE = {
    "Heun": 5.0,
    "2M": 20.0,
    "UniPC": 5.0,
    "UniPC-2": 5.0,
    "2M SDE": 12.0,
    "DDIM": 24.0,
    "Euler": 24.0,
    "DDIM half": 24.0,
    "ancestral": 20.0,
}
BEYOND_DATA = 20.0  # ancestral with beta adds too much noise by design


def name(thing: Schedule | Spacing) -> str:
    inner = getattr(thing, "schedule", None)
    return type(thing).__name__ + (f" of {type(inner).__name__}" if inner else "")


@pytest.fixture(scope="module")
def images() -> ImageGaussian:
    return image_gaussian()


def ends_at(schedule: Schedule) -> float:
    """Return SNR(1)."""
    return schedule.exact_log_snr(torch.ones(())).exp().item()


def brightness_error(images: ImageGaussian, schedule: Schedule) -> float:
    """Return what the mean may be wrong by at most, squared, because pure noise is not quite x_1.

    Its mean lacks alpha m, 1 / s_1 of which in units of the noise; the flow from s_1 shrinks that, along an axis of
    variance S, by sqrt(S / (S + s_1^2)) s_1.
    """
    snr = ends_at(schedule)
    return (images.mean.square() * images.variances * snr / (images.variances * snr + 1)).sum().item()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("spacing", [LogSNRSpacing(), KarrasSpacing()], ids=name)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_between_equal_levels_reach_the_images(
    sampler: str, spacing: Spacing, schedule: Schedule, images: ImageGaussian
) -> None:
    by_mean, by_covariance = images.frechet(SAMPLERS[sampler](25, spacing), schedule)
    assert by_covariance < FINE.get(sampler, BEYOND_DATA)
    assert by_mean < 1.1 * brightness_error(images, schedule) + 1e-9


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("spacing", [UniformSpacing(), TrailingSpacing()], ids=name)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_between_equal_times_reach_the_images(
    sampler: str, spacing: Spacing, schedule: Schedule, images: ImageGaussian
) -> None:
    by_mean, by_covariance = images.frechet(SAMPLERS[sampler](25, spacing), schedule)
    assert by_covariance < COARSE.get(sampler, BEYOND_DATA)
    assert by_mean < 1.1 * brightness_error(images, schedule) + 1e-9
    assert images.frechet(SAMPLERS[sampler](50, spacing), schedule)[1] < 0.6 * by_covariance


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
@pytest.mark.parametrize("sampler", ["Euler", "Heun"])
def test_stochastic_solvers_reach_the_images(sampler: str, schedule: Schedule, images: ImageGaussian) -> None:
    spacing = ChurnedSpacing(KarrasSpacing(), inflation=1.0)
    by_mean, by_covariance = images.frechet(SAMPLERS[sampler](25, spacing), schedule)
    assert by_covariance < {"Heun": 1.0, "Euler": 8.0}[sampler]
    assert by_mean < 0.1


@pytest.mark.parametrize("sampler", ["DDIM", "Heun", "2M", "ancestral"])
def test_to_begin_below_the_end_costs_brightness(sampler: str, images: ImageGaussian) -> None:
    """The documented flaw of LeadingSpacing (Lin et al. 2024), which the others must not have."""
    by_mean, _ = images.frechet(SAMPLERS[sampler](25, LeadingSpacing()), CosineSchedule())
    assert by_mean > 1


@pytest.mark.parametrize("steps", [1, 2, 3, 25])
@pytest.mark.parametrize("start", [1.0, 0.999, 0.4])
@pytest.mark.parametrize("spacing", [LogSNRSpacing(), KarrasSpacing(), StraightOrKarrasSpacing()], ids=name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_paths_begin_exactly_at_the_start(schedule: Schedule, spacing: Spacing, start: float, steps: int) -> None:
    path = spacing.path(steps, schedule, start)
    assert path[0] == start
    assert path[-1] == 0
    levels = schedule.levels(path)
    assert len(levels) == steps + 1
    assert all(s.is_below(t) for t, s in pairwise(levels))


def test_euler_and_heun_take_equal_times_on_a_straight_path_alone() -> None:
    for sampler in (EulerSampler(10), HeunSampler(10)):
        for straight in (RectifiedFlowSchedule(), ShiftedSchedule(RectifiedFlowSchedule(), 128)):
            assert [level.t for level in sampler.levels(straight)] == UniformSpacing().path(10, straight)
        for other in (CosineSchedule(), EDMSchedule()):
            assert [level.t for level in sampler.levels(other)] == KarrasSpacing().path(10, other)


GAUSSIAN = GaussianData([0.3, -0.5], [[0.25, 0.1], [0.1, 0.09]])
ORDERS = {"DDIM": 1, "Heun": 2, "2M": 2, "UniPC-2": 3}


def errors(sampler: str, spacing: Spacing, schedule: Schedule, counts: tuple[int, ...]) -> list[float]:
    """Return root mean squared errors against the exact flow."""
    found = []
    for steps in counts:
        made = SAMPLERS[sampler](steps, spacing)
        first, generator = made.levels(schedule)[0], torch.Generator().manual_seed(0)
        x_T = first.sigma * torch.randn(64, 2, 1, 1, generator=generator, dtype=torch.float64)
        error = made.sample(GAUSSIAN.denoiser(schedule), x_T, schedule) - GAUSSIAN.flow(x_T, first.alpha, first.sigma)
        found.append(error.square().mean().sqrt().item())
    return found


@pytest.mark.parametrize("schedule", [*SCHEDULES[:3], EDMSchedule(sigma_min=1e-4), *SCHEDULES[4:]], ids=name)
@pytest.mark.parametrize("spacing", [LogSNRSpacing(1e-4, t_min=0), KarrasSpacing(sigma_min=1e-4, t_min=0)], ids=name)
@pytest.mark.parametrize("sampler", ORDERS)
def test_errors_fall_at_the_order_of_the_method(sampler: str, spacing: Spacing, schedule: Schedule) -> None:
    found = errors(sampler, spacing, schedule, (20, 40, 80))
    assert found[0] < 0.09  # of a standard deviation of about 0.4
    for coarse, fine in pairwise(found):
        assert math.log2(coarse / fine) == pytest.approx(ORDERS[sampler], abs=0.45), found


@pytest.mark.parametrize("schedule", SCHEDULES[:3] + SCHEDULES[4:], ids=name)
@pytest.mark.parametrize("sampler", ORDERS)
def test_errors_of_equal_times_fall_at_first_order_at_least(sampler: str, schedule: Schedule) -> None:
    """Not more in general: where sigma^2 rises linearly from 0, the last step of 1 / N leaves an error of 1 / N."""
    found = errors(sampler, UniformSpacing(), schedule, (20, 40, 80))
    for coarse, fine in pairwise(found):
        assert math.log2(coarse / fine) > 0.8, found


@pytest.mark.parametrize("schedule", [RectifiedFlowSchedule(), ShiftedSchedule(RectifiedFlowSchedule(), 128)], ids=name)
def test_heun_s_method_is_of_second_order_in_time_on_a_straight_path(schedule: Schedule) -> None:
    for coarse, fine in pairwise(errors("Heun", UniformSpacing(), schedule, (20, 40, 80))):
        assert math.log2(coarse / fine) == pytest.approx(2, abs=0.15)


class Textbook(Sampler):
    """Heun's method on dx / dt = eps - x_0, of rectified flow."""

    evaluates_ends = True

    def step(self, x_t, t, s, state):  # type: ignore[no-untyped-def]
        def slope(x, level):  # type: ignore[no-untyped-def]
            return (x - state.denoise(x, level).x0) / level.t  # for x = (1 - t) x_0 + t eps

        first = slope(x_t, t)
        x_s = x_t + (s.t - t.t) * first
        return x_t + (s.t - t.t) * (first + slope(x_s, s)) / 2 if s.t else x_s


def test_on_rectified_flow_heun_s_is_the_textbook_s_by_t(images: ImageGaussian) -> None:
    ours, theirs = (
        images.frechet(cls(25, UniformSpacing()), RectifiedFlowSchedule()) for cls in (HeunSampler, Textbook)
    )
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)
    assert ours[1] == pytest.approx(0.055, abs=0.005)
