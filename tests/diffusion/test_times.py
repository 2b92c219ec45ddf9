from pathlib import Path

import pytest
import torch
from processes import run_in_two
from scipy import stats

from lit_generative.description import describe, rebuild
from lit_generative.diffusion.schedules import CosineSchedule, EDMSchedule
from lit_generative.diffusion.times import (
    GridTimes,
    LogitNormalTimes,
    LogNormalTimes,
    LossAwareTimes,
    StratifiedTimes,
    TimeSampler,
    UniformTimes,
)

SAMPLERS = [
    UniformTimes(),
    StratifiedTimes(),
    LogitNormalTimes(),
    LogNormalTimes(EDMSchedule()),
    GridTimes(),
    LossAwareTimes(num_bins=20),
]

each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)


@each_sampler
def test_times_are_in_the_unit_interval_without_zero(sampler: TimeSampler) -> None:
    torch.manual_seed(0)
    t, importance = sampler(50_000, "cpu")
    assert t.shape == importance.shape == (50_000,)
    assert t.dtype == importance.dtype == torch.float32
    assert (t > 0).all()
    assert (t <= 1).all()
    torch.testing.assert_close(importance, torch.ones(50_000))


@each_sampler
def test_times_are_precise_in_half_precision_training(sampler: TimeSampler, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(torch.bfloat16)
    sampler = rebuild(describe(sampler)).to(torch.bfloat16)
    t, importance = sampler(1000)
    assert t.dtype == importance.dtype == torch.float32
    assert (t.bfloat16().float() != t).float().mean() > 0.5
    for _ in range(10):
        sampler.observe(t.repeat(2), torch.ones(2000))
    torch.testing.assert_close(sampler(1000)[1], torch.ones(1000, dtype=torch.float32))


@each_sampler
def test_times_follow_the_global_generator(sampler: TimeSampler) -> None:
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(sampler(10)[0])
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@each_sampler
def test_every_sampler_is_rebuilt_from_its_description(sampler: TimeSampler) -> None:
    rebuilt = rebuild(describe(sampler))
    assert type(rebuilt) is type(sampler)
    draws = []
    for each in (rebuilt, sampler):
        torch.manual_seed(0)
        draws.append(each(10)[0])
    assert torch.equal(*draws)


@pytest.mark.parametrize(
    ("sampler", "cdf"),
    [
        (UniformTimes(), stats.uniform.cdf),
        (StratifiedTimes(), stats.uniform.cdf),
        (LossAwareTimes(num_bins=7), stats.uniform.cdf),
        (LogitNormalTimes(0.5, 0.7), lambda t: stats.norm(0.5, 0.7).cdf(torch.logit(torch.as_tensor(t)))),
    ],
    ids=["uniform", "stratified", "loss-aware", "logit-normal"],
)
def test_times_have_their_distribution(sampler: TimeSampler, cdf: object) -> None:
    torch.manual_seed(0)
    # one image at a time where the others of a batch have an influence
    t = (
        torch.cat([sampler(4)[0][:1] for _ in range(2000)])
        if isinstance(sampler, StratifiedTimes)
        else sampler(2000)[0]
    )
    assert stats.kstest(t.double(), cdf).pvalue > 0.01


def test_edm_noise_is_log_normal() -> None:
    torch.manual_seed(0)
    for schedule in (EDMSchedule(), CosineSchedule()):
        log_ratio = -schedule.log_snr(LogNormalTimes(schedule)(2000)[0]) / 2
        assert stats.kstest(log_ratio.double(), stats.norm(-1.2, 1.2).cdf).pvalue > 0.01


def test_noise_beyond_the_schedule_is_moved_to_its_end() -> None:
    t, _ = LogNormalTimes(EDMSchedule(sigma_min=0.1, sigma_max=1.0), mean=0.0, std=50.0)(100)
    _, sigma = EDMSchedule(sigma_min=0.1, sigma_max=1.0)(t)
    assert sigma.min().item() == pytest.approx(0.1)
    assert sigma.max().item() == pytest.approx(1)
    assert (t > 0).all()


@pytest.mark.parametrize("n", [1, 2, 33, 64])
def test_each_stratum_has_one_time(n: int) -> None:
    torch.manual_seed(0)
    for _ in range(20):
        t, _ = StratifiedTimes()(n)
        assert (t * n).ceil().sort().values.tolist() == list(range(1, n + 1))


def test_strata_are_in_random_order() -> None:
    torch.manual_seed(0)
    t = torch.stack([StratifiedTimes()(16)[0] for _ in range(500)])
    places = torch.arange(16.0).expand(500, 16)
    assert abs(stats.pearsonr(t.flatten(), places.flatten()).statistic) < 0.03


def test_strata_make_the_mean_of_a_batch_vary_less() -> None:
    torch.manual_seed(0)
    losses = {type(s): torch.stack([(1 / (0.1 + s(32)[0])).mean() for _ in range(200)]) for s in SAMPLERS[:2]}
    assert losses[StratifiedTimes].var() < losses[UniformTimes].var() / 20
    torch.testing.assert_close(losses[StratifiedTimes].mean(), torch.tensor(11.0).log(), rtol=0.01, atol=0)


def test_grid_times_are_all_multiples_of_the_step_and_equally_likely() -> None:
    torch.manual_seed(0)
    t, _ = GridTimes(num_steps=10)(20_000)
    steps = (t * 10).round()
    torch.testing.assert_close(t, steps / 10)
    counts = torch.bincount(steps.long(), minlength=11)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 0.01


def warmed_up(num_bins: int = 10, history: int = 4, uniform: float = 0.001) -> LossAwareTimes:
    """A sampler that has seen the loss :func:`loss_at` everywhere."""
    sampler = LossAwareTimes(num_bins, history, uniform)
    centres = (torch.arange(num_bins) + 0.5) / num_bins
    for _ in range(history):
        sampler.observe(centres, loss_at(centres))
    return sampler


def loss_at(t: torch.Tensor) -> torch.Tensor:
    return 1 / (0.02 + t)


def test_loss_aware_prefers_bins_by_the_root_mean_square_of_their_losses() -> None:
    sampler = warmed_up(uniform=1e-9)
    expected = loss_at((torch.arange(10) + 0.5) / 10)
    torch.testing.assert_close(sampler.probabilities(), expected / expected.sum())
    torch.manual_seed(0)
    t, importance = sampler(50_000)
    counts = torch.bincount((t * 10).ceil().long() - 1, minlength=10)
    p = sampler.probabilities().double()
    assert stats.chisquare(counts, 50_000 * p / p.sum()).pvalue > 0.01
    torch.testing.assert_close(importance, (0.1 / sampler.probabilities())[(t * 10).ceil().long() - 1])


def test_loss_aware_is_unbiased_and_varies_less() -> None:
    torch.manual_seed(0)
    (t, importance), (t_uniform, _) = warmed_up(num_bins=50)(100_000), UniformTimes()(100_000)
    weighted, plain = importance * loss_at(t), loss_at(t_uniform)
    exact = torch.tensor(1.02 / 0.02).log().item()
    assert weighted.mean().item() == pytest.approx(exact, abs=4 * weighted.std().item() / 100_000**0.5)
    assert weighted.var() < plain.var() / 20
    assert importance.mean().item() == pytest.approx(1, abs=0.02)


def test_loss_aware_is_uniform_until_each_bin_has_its_history() -> None:
    sampler = LossAwareTimes(num_bins=4, history=2)
    t, loss = torch.tensor([0.1, 0.3, 0.6, 0.9]), torch.tensor([8.0, 4.0, 2.0, 2.0])
    sampler.observe(t, loss)
    sampler.observe(t[:3], loss[:3])
    assert torch.equal(sampler.probabilities(), torch.full((4,), 0.25))
    sampler.observe(t[3:], loss[3:])
    torch.testing.assert_close(sampler.probabilities(), torch.tensor([0.5, 0.25, 0.125, 0.125]), atol=5e-4, rtol=0)


def test_loss_aware_remembers_the_last_steps_only() -> None:
    sampler = LossAwareTimes(num_bins=1, history=3)
    for loss in (100.0, 1.0, 2.0, 3.0):
        sampler.observe(torch.tensor([0.5]), torch.tensor([loss]))
    assert sampler.mean_squares.sum(1).tolist() == [1 + 4 + 9]
    sampler.observe(torch.tensor([0.5, 0.7]), torch.tensor([5.0, 7.0]))  # two of a step: their mean
    assert sampler.mean_squares.sum(1).tolist() == [4 + 9 + (25 + 49) / 2]


def test_loss_aware_puts_the_edges_where_they_belong() -> None:
    sampler = LossAwareTimes(num_bins=10, history=1)
    sampler.observe(torch.tensor([0.0, 0.1, 0.1001, 1.0]), torch.ones(4))
    assert sampler.counts.nonzero().flatten().tolist() == [0, 1, 9]
    assert sampler.counts.sum() == 3


def test_loss_aware_survives_losses_that_are_zero_or_not_finite() -> None:
    sampler = warmed_up(num_bins=4, history=2)
    before = sampler.probabilities()
    sampler.observe(torch.tensor([0.1, 0.4, 0.6, 0.9]), torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30]))
    assert torch.equal(sampler.probabilities(), before)
    for _ in range(2):
        sampler.observe(torch.tensor([0.1, 0.4, 0.6, 0.9]), torch.zeros(4))
    torch.testing.assert_close(sampler.probabilities(), torch.full((4,), 0.25))


def test_loss_aware_keeps_no_graph_and_resumes_from_its_state() -> None:
    sampler = LossAwareTimes(num_bins=2, history=1)
    loss = torch.tensor([3.0, 1.0], requires_grad=True) * 1
    sampler.observe(torch.tensor([0.2, 0.8]), loss)
    assert not sampler.mean_squares.requires_grad
    resumed = LossAwareTimes(num_bins=2, history=1)
    resumed.load_state_dict(sampler.state_dict())
    assert torch.equal(resumed.probabilities(), sampler.probabilities())
    assert sampler.probabilities()[0] > 0.7


def observe_on(rank: int, folder: str) -> None:
    """Be one of two processes with batches of different sizes."""
    sampler = LossAwareTimes(num_bins=2, history=1)
    batches = [([0.2, 0.9, 0.3], [1.0, 2.0, 3.0]), ([0.1], [5.0])]
    t, loss = map(torch.tensor, batches[rank])
    sampler.observe(t, loss)
    torch.save(sampler.state_dict(), f"{folder}/{rank}.pt")


def test_loss_aware_is_the_same_on_all_processes(tmp_path: Path) -> None:
    run_in_two(observe_on, tmp_path)
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert state["mean_squares"].flatten().tolist() == pytest.approx([(1 + 9 + 25) / 3, 4])
        assert state["counts"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitNormalTimes(std=0), "std=0.*positive"),
        (lambda: LogNormalTimes(EDMSchedule(), std=-1), "std=-1.*positive"),
        (lambda: GridTimes(num_steps=0), "num_steps=0.*at least 1"),
        (lambda: LossAwareTimes(num_bins=0), "num_bins=0.*at least 1"),
        (lambda: LossAwareTimes(history=0), "history=0.*at least 1"),
        (lambda: LossAwareTimes(uniform=0), r"uniform=0.*\(0, 1\]"),
    ],
)
def test_impossible_samplers_are_refused(make: type[TimeSampler], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
