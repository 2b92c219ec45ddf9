import math
from itertools import pairwise

import pytest
import torch

from lit_generative.diffusion.samplers import draw_like, raise_noise
from lit_generative.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearBetaSchedule,
    RectifiedFlowSchedule,
    Schedule,
)
from lit_generative.diffusion.spacings import (
    ChurnedSpacing,
    KarrasSpacing,
    LeadingSpacing,
    LogSNRSpacing,
    ResampledSpacing,
    Spacing,
    TrailingSpacing,
    UniformSpacing,
)


@pytest.mark.parametrize(
    "schedule",
    [LinearBetaSchedule(), CosineSchedule(), RectifiedFlowSchedule(), EDMSchedule()],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize(
    "spacing", [UniformSpacing(), TrailingSpacing(), LeadingSpacing(), KarrasSpacing(), LogSNRSpacing()]
)
@pytest.mark.parametrize("steps", [1, 7, 250])
@pytest.mark.parametrize("start", [1.0, 0.4])
def test_paths_descend_from_the_start_to_the_clean_image(
    spacing: Spacing, schedule: Schedule, steps: int, start: float
) -> None:
    path = spacing.path(steps, schedule, start)
    assert len(path) == steps + 1
    assert path[-1] == 0
    assert path[0] <= start
    levels = schedule.levels(path)
    assert all(later.is_below(earlier) for earlier, later in pairwise(levels))
    assert levels[-1] == (0, 1, 0)
    if not isinstance(spacing, LeadingSpacing):
        assert path[0] == start


def test_grids_are_those_of_a_discrete_model() -> None:
    assert TrailingSpacing(10).path(3, CosineSchedule()) == [1.0, 0.7, 0.3, 0.0]
    assert LeadingSpacing(10).path(3, CosineSchedule()) == [0.7, 0.4, 0.1, 0.0]
    assert TrailingSpacing(10).path(2, CosineSchedule(), start=0.4) == [0.4, 0.2, 0.0]
    with pytest.raises(ValueError, match=r"steps=11.*10 points"):
        TrailingSpacing(10).path(11, CosineSchedule())


def log_levels(spacing: Spacing, steps: int, schedule: Schedule) -> torch.Tensor:
    """Return log(sigma / alpha) at each time but 0, float64."""
    return schedule.exact_log_snr(torch.tensor(spacing.path(steps, schedule)[:-1], dtype=torch.float64)) / -2


def test_karras_levels_are_their_equation_5() -> None:
    ratios = log_levels(KarrasSpacing(7.0, 0.01, 80.0), 9, EDMSchedule()).exp()
    i = torch.arange(9, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / 8 * (0.01 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(ratios, expected, rtol=1e-4, atol=0)


def test_log_snr_steps_are_equal() -> None:
    steps = log_levels(LogSNRSpacing(sigma_max=200.0), 9, LinearBetaSchedule()).diff()  # it ends at 157
    torch.testing.assert_close(steps, steps.mean().expand(8), rtol=1e-3, atol=0)


@pytest.mark.parametrize("schedule", [LinearBetaSchedule(), CosineSchedule(), RectifiedFlowSchedule()])
@pytest.mark.parametrize("spacing", [LogSNRSpacing(), KarrasSpacing()])
def test_beyond_sigma_max_there_are_few_steps_and_below_they_are_equal(spacing: Spacing, schedule: Schedule) -> None:
    levels = log_levels(spacing, 100, schedule)
    assert (levels > math.log(80)).sum() < 0.1 * 100
    low = levels[levels < math.log(8)]
    steps = (low if isinstance(spacing, LogSNRSpacing) else torch.exp(low / 7)).diff()
    torch.testing.assert_close(steps, steps.mean().expand(len(steps)), rtol=0.01, atol=0)


def test_churn_raises_sigma_by_gamma_within_its_range() -> None:
    schedule = EDMSchedule()
    plain = schedule.levels(KarrasSpacing().path(20, schedule))
    churn = ChurnedSpacing(KarrasSpacing(), amount=4.0, lowest=0.1, highest=30.0)
    churned = schedule.levels(churn.path(20, schedule))
    raised = {t.t: s.sigma / t.sigma for t, s in pairwise(churned) if not s.is_below(t)}
    for level in plain:
        if 0.1 <= level.sigma <= 30:
            assert raised.pop(level.t) == pytest.approx(1.2, rel=1e-4)
    assert not raised
    assert ChurnedSpacing(KarrasSpacing(), amount=0.0).path(20, schedule) == KarrasSpacing().path(20, schedule)


def test_resampling_takes_each_block_again() -> None:
    path = ResampledSpacing(UniformSpacing(), jump=2, passes=2).path(5, CosineSchedule())
    assert [round(5 * t) for t in path] == [5, 4, 3, 5, 4, 3, 2, 1, 3, 2, 1, 0, 1, 0]


@pytest.mark.parametrize(
    "schedule", [CosineSchedule(), RectifiedFlowSchedule(), EDMSchedule()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("times", [(0.3, 0.5), (0.0, 0.7)])
def test_noise_put_back_is_the_forward_process(schedule: Schedule, times: tuple[float, float]) -> None:
    t, s = schedule.levels(list(times))
    generator = torch.Generator().manual_seed(0)
    x0 = torch.full((50_000, 1, 1, 1), 0.6)
    x_t = t.alpha * x0 + t.sigma * draw_like(x0, generator)
    x_s = raise_noise(x_t, t, s, draw_like(x_t, generator))
    assert x_s.mean().item() == pytest.approx(s.alpha * 0.6, abs=0.015 * s.sigma)
    assert x_s.std().item() == pytest.approx(s.sigma, rel=0.015)


def test_a_spacing_says_whether_it_puts_noise_back() -> None:
    for spacing in (
        UniformSpacing(),
        LeadingSpacing(),
        KarrasSpacing(),
        ChurnedSpacing(KarrasSpacing()),
        ChurnedSpacing(KarrasSpacing(), amount=0.0),
        ResampledSpacing(UniformSpacing(), jump=2, passes=3),
        ResampledSpacing(UniformSpacing(), passes=1),
    ):
        levels = CosineSchedule().levels(spacing.path(20, CosineSchedule()))
        assert spacing.puts_noise_back == any(t.is_below(s) for t, s in pairwise(levels))


def test_impossible_spacings_are_refused() -> None:
    for make, message in (
        (lambda: TrailingSpacing(0), "T=0"),
        (lambda: KarrasSpacing(rho=0), "rho=0"),
        (lambda: LogSNRSpacing(2.0, 1.0), "sigma_min=2.0"),
        (lambda: KarrasSpacing(t_min=1.0), "t_min=1.0"),
        (lambda: ChurnedSpacing(UniformSpacing(), amount=-1), "amount=-1"),
        (lambda: ResampledSpacing(UniformSpacing(), jump=0), "jump=0"),
        (lambda: ChurnedSpacing(ResampledSpacing(UniformSpacing())), "ResampledSpacing: it puts noise back; .*plain"),
        (lambda: KarrasSpacing(sigma_min=5.0).path(4, CosineSchedule(), start=0.3), "sigma_min=5.0.*t=0.3"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
