"""The variational bound, term by term against torch's own divergences and in sum against a known likelihood."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from analytic import GaussianData, ImageGaussian, image_gaussian
from scipy.special import log_ndtr
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from lit_generative.description import describe, rebuild
from lit_generative.diffusion import Denoiser, Estimate
from lit_generative.diffusion.likelihood import VariationalBound, discretized_gaussian, strata
from lit_generative.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearBetaSchedule,
    RectifiedFlowSchedule,
    Schedule,
)
from lit_generative.diffusion.thresholding import StaticThresholding
from lit_generative.diffusion.weights import DiscreteBoundWeight
from lit_generative.eight_bit import BIN, bits_per_dim

GAUSSIAN = GaussianData([0.1], [[0.04]])
LEVELS = torch.linspace(-1, 1, 256, dtype=torch.float64)
EDGES = torch.cat([LEVELS - BIN / 2, LEVELS[-1:] + BIN / 2])
P = Normal(0.1, 0.2).cdf(EDGES).diff()
ENTROPY = -torch.special.xlogy(P, P).sum().item()


@pytest.fixture(scope="module")
def images_data() -> ImageGaussian:
    return image_gaussian()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, shape: tuple[int, ...] = (1, 4, 4)) -> Tensor:
    """Draw images of 256 levels."""
    return LEVELS[torch.randint(256, (n, *shape), generator=seeded(9))]


def gaussian_images(n: int) -> Tensor:
    """Return evenly spaced quantiles of the Gaussian data, rounded to the 256 levels."""
    x = Normal(0.1, 0.2).icdf((torch.arange(n).double() + 0.5) / n)
    return (((x + 1) / BIN).round() * BIN - 1).clamp(-1, 1).view(n, 1, 1, 1)


def recording(denoise: Denoiser, calls: list[tuple[Tensor, Tensor]]) -> Denoiser:
    def recorded(x_t: Tensor, t: Tensor) -> Estimate:
        calls.append((x_t, t))
        return denoise(x_t, t)

    return recorded


def same(x_t: Tensor, t: Tensor) -> Estimate:
    return Estimate(x_t)


def normal(mean: Tensor, variance: Tensor | float) -> Independent:
    std = torch.as_tensor(variance).double().sqrt().expand_as(mean)
    return Independent(Normal(mean, std), mean.ndim - 1)


@pytest.mark.parametrize("v", [0.0, 0.3, 1.0, "learned"])
def test_each_term_is_the_divergence_of_ddpm_s_two_gaussians(v: float | str) -> None:
    """Ho et al. 2020 eq. 5 to 7, written with betas."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bars = torch.cat([betas.new_ones(1), (1 - betas).cumprod(0)])
    x0, calls = images(3), []
    v_of_pixels = torch.rand(x0.shape, generator=seeded(1)).double() * 1.4 - 0.2  # a network may leave [0, 1]

    def denoise(x_t: Tensor, t: Tensor) -> Estimate:
        return Estimate(0.8 * x_t.tanh() + 0.1, v_of_pixels if v == "learned" else None)

    bound = VariationalBound(1000, v=0.0 if v == "learned" else v)
    terms = bound.terms(recording(denoise, calls), x0, LinearBetaSchedule(), generator=seeded())

    fraction = v_of_pixels if v == "learned" else v
    assert len(calls) == 1000
    for k in (0, 1, 2, 50, 500, 998, 999):
        x_t, t = calls[k]
        i = round(t[0].item() * 1000)
        assert i == k + 1
        beta, alpha_bar, before = betas[i - 1], alpha_bars[i], alpha_bars[i - 1]
        tilde = beta * (1 - before) / (1 - alpha_bar) if i > 1 else betas[1] * betas[0] / (1 - alpha_bars[2])
        variance = torch.exp(fraction * beta.log() + (1 - fraction) * tilde.log())
        mean, mean_hat = (
            (before.sqrt() * beta * x + (1 - beta).sqrt() * (1 - before) * x_t) / (1 - alpha_bar)
            for x in (x0, denoise(x_t, t).x0)
        )
        if i == 1:
            expected = -discretized_gaussian(x0, mean_hat, variance.log().expand_as(x0)).flatten(1).sum(1)
            torch.testing.assert_close(terms.decoder, expected, rtol=1e-5, atol=1e-5)
        else:
            torch.testing.assert_close(terms.times[:, k - 1], torch.full((3,), i / 1000).double())
            expected = kl_divergence(normal(mean, tilde), normal(mean_hat, variance))
            torch.testing.assert_close(terms.steps[:, k - 1], expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    "schedule",
    [LinearBetaSchedule(), CosineSchedule(), RectifiedFlowSchedule(), EDMSchedule()],
    ids=lambda s: type(s).__name__,
)
def test_with_the_posterior_s_variance_terms_are_weighted_errors_of_the_noise(schedule: Schedule) -> None:
    x0, calls = images(4), []
    terms = VariationalBound(100).terms(
        recording(lambda x, t: Estimate(x.tanh()), calls), x0, schedule, generator=seeded()
    )
    weight = DiscreteBoundWeight(schedule, 100)
    for k, (x_t, t) in enumerate(calls[1:]):
        error = torch.exp(schedule.log_snr(t).double()) * (x0 - x_t.tanh()).square().flatten(1).sum(1)
        expected = weight(schedule.log_snr(t)).double() / 100 * error
        torch.testing.assert_close(terms.steps[:, k], expected, rtol=3e-5, atol=0)


@pytest.mark.parametrize(
    "schedule",
    [LinearBetaSchedule(), CosineSchedule(), RectifiedFlowSchedule(), EDMSchedule()],
    ids=lambda s: type(s).__name__,
)
def test_prior_s_term(schedule: Schedule) -> None:
    x0 = images(4)
    alpha, sigma = (level.double() for level in schedule(torch.ones(())))
    prior = VariationalBound(2).terms(same, x0, schedule).prior
    expected = kl_divergence(normal(alpha * x0, sigma**2), normal(torch.zeros_like(x0), sigma**2))
    torch.testing.assert_close(prior, expected, rtol=1e-4, atol=1e-12)
    if schedule.variance_preserving:  # Ho et al.'s has variance 1, which is all the same
        theirs = kl_divergence(normal(alpha * x0, sigma**2), normal(torch.zeros_like(x0), 1.0))
        torch.testing.assert_close(prior, theirs, rtol=1e-3, atol=1e-6)


def test_expected_terms_of_gaussian_data_are_known() -> None:
    """With the exact denoiser the squared error of x_0 is the posterior's variance."""
    schedule, x0 = (
        CosineSchedule(),
        Normal(0.1, 0.2).icdf((torch.arange(20_000).double() + 0.5) / 20_000).view(-1, 1, 1, 1),
    )
    terms = VariationalBound(20).terms(GAUSSIAN.denoiser(schedule), x0, schedule, generator=seeded())
    t = torch.arange(1, 21) / 20
    snr = schedule.log_snr(t).double().exp()
    expected = (snr[:-1] - snr[1:]) / 2 * 0.04 / (1 + 0.04 * snr[1:])
    assert terms.steps.mean(0).tolist() == pytest.approx(expected.tolist(), rel=0.05)


def with_exact_variance(schedule: Schedule, steps: int) -> Denoiser:
    """Return the estimate of x_0 and the v of the Gaussian x_s given x_t, or of x_0 given x_1."""
    denoise = GAUSSIAN.denoiser(schedule)

    def with_variance(x_t: Tensor, t: Tensor) -> Estimate:
        i = round(t[0].item() * steps)
        times = torch.tensor([max(i, 2) / steps, max(i - 1, 1) / steps])
        alpha, sigma = (levels.double() for levels in schedule(times))
        beta = sigma[0] ** 2 - (alpha[0] / alpha[1] * sigma[1]) ** 2
        tilde = beta * (sigma[1] / sigma[0]) ** 2
        of_x0 = 0.04 * sigma**2 / (alpha**2 * 0.04 + sigma**2)  # the variance of x_0 given x_t, and given x_s
        best = tilde + (alpha[1] * beta / sigma[0] ** 2) ** 2 * of_x0[0] if i > 1 else of_x0[1]
        most = beta if i > 1 else sigma[1] ** 2
        return Estimate(denoise(x_t, t).x0, torch.full_like(x_t, ((best / tilde).log() / (most / tilde).log()).item()))

    return with_variance


def test_the_bound_is_the_log_probability_where_model_and_posterior_agree() -> None:
    """For Gaussian data the reversed steps are Gaussian; with their moments the bound is tight, for any T."""
    schedule, x0 = CosineSchedule(), gaussian_images(40_000)
    for steps in (2, 10, 40):
        gaps = {}
        for name, bound, denoise in (
            ("exact", VariationalBound(steps), with_exact_variance(schedule, steps)),
            ("least", VariationalBound(steps, v=0.0), GAUSSIAN.denoiser(schedule)),
            ("most", VariationalBound(steps, v=1.0), GAUSSIAN.denoiser(schedule)),
        ):
            gaps[name] = bound.terms(denoise, x0, schedule, generator=seeded()).total - ENTROPY
        assert abs(gaps["exact"].mean()) < 3 * gaps["exact"].std() / 40_000**0.5 < 0.02  # of 4.66 nats
        assert gaps["least"].mean() > 0.05
        assert gaps["most"].mean() > 0.05


def test_an_estimate_from_some_steps_has_the_bound_as_its_mean() -> None:
    schedule, x0 = LinearBetaSchedule(num_steps=50), gaussian_images(2000)
    denoise = GAUSSIAN.denoiser(schedule)
    full = VariationalBound(50).terms(denoise, x0, schedule, generator=seeded()).total
    for evaluations in (2, 8, 33):
        estimate = VariationalBound(50, evaluations).terms(denoise, x0, schedule, generator=seeded(evaluations))
        assert estimate.steps.shape == (2000, evaluations - 1)
        standard_error = math.hypot(*((total.std() / 2000**0.5).item() for total in (full, estimate.total)))
        assert abs(estimate.total.mean() - full.mean()).item() < 3 * standard_error


def test_steps_are_drawn_from_strata_that_cover_all_but_the_first() -> None:
    x0 = images(3000, (1, 1, 1)).float()
    terms = VariationalBound(20, 5).terms(same, x0, CosineSchedule(), generator=seeded())
    i = (terms.times * 20).round().long()
    assert sorted(set(i.flatten().tolist())) == list(range(2, 21))
    assert all(early.max() < late.min() for early, late in pairwise(i.T))
    assert terms.counts.tolist() == [len(set(column.tolist())) for column in i.T]
    for column, count in zip(i.T, terms.counts, strict=True):  # uniform within a stratum
        shares = column.bincount()[column.min() :] / len(column) * count
        assert (shares - 1).abs().max() < 0.2
    every = VariationalBound(1000).terms(same, x0[:3], CosineSchedule(), generator=seeded()).times
    assert torch.equal((every * 1000).round(), torch.arange(2, 1001).expand(3, -1).float())


@pytest.mark.parametrize(("num_steps", "count"), [(2, 1), (10, 9), (50, 7), (1000, 1), (1000, 99), (4000, 999)])
def test_strata_are_whole_and_grow(num_steps: int, count: int) -> None:
    sizes = torch.tensor(strata(num_steps, count)).diff()
    assert len(sizes) == count
    assert sizes.sum() == num_steps - 1
    assert (sizes >= 1).all()
    assert (sizes.diff() >= -1).all()  # they are rounded


def test_the_first_twenty_steps_are_exact_with_a_tenth_of_the_evaluations() -> None:
    assert strata(1000, 99)[:20] == list(range(2, 22))


def test_few_evaluations_cost_little_precision_and_no_bias(images_data: ImageGaussian) -> None:
    """Of one image of 784 values: the spread over the choice of steps, each seed with noise of its own."""
    schedule, denoise = CosineSchedule(), images_data.denoiser(CosineSchedule())
    x0 = images_data.draw(1, seeded()).expand(64, -1, -1, -1)
    full = VariationalBound(1000).terms(denoise, x0[:4], schedule, generator=seeded(1)).total
    some = VariationalBound(1000, 100).terms(denoise, x0, schedule, generator=seeded(2)).total
    bits = bits_per_dim(torch.ones(()), 784)
    spread = some.std() * bits
    assert spread < 0.1  # 2.4 with strata of equal size
    assert abs(some.mean() - full.mean()) * bits < 3 * math.hypot(spread / 8, full.std() * bits / 2)


# -------------------------------------------------------------------- the optimal variance


@pytest.mark.parametrize("steps", [2, 10, 40])
@pytest.mark.parametrize(
    "schedule", [LinearBetaSchedule(), CosineSchedule(), RectifiedFlowSchedule()], ids=lambda s: type(s).__name__
)
def test_with_the_optimal_variance_the_bound_of_gaussian_data_is_tight(schedule: Schedule, steps: int) -> None:
    """Values of one variance each: then one variance of a step suits all of them."""
    x0 = gaussian_images(5000)
    terms = VariationalBound(steps, v=None).terms(GAUSSIAN.denoiser(schedule), x0, schedule, generator=seeded())
    gap = (terms.total - terms.prior).mean() - ENTROPY
    assert abs(gap) < 3 * terms.total.std() / 5000**0.5 < 0.08


@pytest.mark.parametrize("std", [1e-3, 0.02, 0.3, 0.9])
def test_the_optimal_variance_is_between_the_two_and_better_for_all_data(std: float) -> None:
    """Nearly constant data want beta-tilde, and wide ones beta; the optimum follows."""
    schedule, data = CosineSchedule(), GaussianData([0.1], [[std**2]])
    x0 = (0.1 + std * torch.randn(400, 1, 1, 1, generator=seeded(), dtype=torch.float64)).clamp(-1, 1)
    steps = {
        v: VariationalBound(10, v=v).terms(data.denoiser(schedule), x0, schedule, generator=seeded()).steps.mean()
        for v in (0.0, 1.0, None)
    }
    assert steps[None] <= min(steps[0.0], steps[1.0]) + 1e-6
    t = torch.tensor([0.4])
    _, variance = VariationalBound.posterior_variance(data.denoiser(schedule), x0[:1], t, schedule)
    alpha, sigma = (level.double().item() for level in schedule(t))
    assert variance.item() == pytest.approx(std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2), rel=1e-5)


def test_the_optimal_variance_knows_nothing_of_the_image() -> None:
    """It is a function of x_t: otherwise there would be no bound."""
    x_t, t = torch.randn(8, 1, 2, 2, generator=seeded()).double(), torch.full((8,), 0.3)
    estimate, variance = VariationalBound.posterior_variance(
        lambda x, t: Estimate(torch.tanh(x), None), x_t, t, CosineSchedule(), seeded(1)
    )
    alpha, sigma = (level.double().item() for level in CosineSchedule()(t[:1]))
    expected = sigma**2 / alpha * (1 - x_t.tanh() ** 2).flatten(1).mean(1)  # random signs find a diagonal exactly
    torch.testing.assert_close(variance.flatten(), expected, rtol=1e-5, atol=0)
    assert not estimate.x0.requires_grad


def test_a_learned_variance_goes_before_the_optimal_one_and_inference_mode_is_left() -> None:
    x0, schedule = images(4), CosineSchedule()
    learned = [
        VariationalBound(20, v=v).terms(
            lambda x, t: Estimate(x.tanh(), torch.full_like(x, 0.3)), x0, schedule, generator=seeded()
        )
        for v in (0.0, None)
    ]
    assert learned[0].total.mean().item() == pytest.approx(learned[1].total.mean().item(), rel=0.2)  # other noise
    with torch.inference_mode():
        terms = VariationalBound(20, v=None).terms(lambda x, t: Estimate(x.tanh()), x0.clone(), schedule)
    assert terms.total.isfinite().all()


def test_estimates_are_thresholded_and_float32_will_do() -> None:
    x0, bound = images(4), VariationalBound(50, thresholding=StaticThresholding())
    exact, same = (
        bound.terms(denoise, x0, CosineSchedule(), generator=seeded())
        for denoise in (lambda x, t: Estimate((9 * x).clamp(-1, 1)), lambda x, t: Estimate(9 * x))
    )
    assert torch.equal(exact.total, same.total)
    single = bound.terms(lambda x, t: Estimate(9 * x), x0.float(), CosineSchedule(), generator=seeded())
    assert single.total.dtype == torch.float32
    assert single.total.mean().item() == pytest.approx(exact.total.mean().item(), rel=0.2)  # other random numbers


@pytest.mark.parametrize("std", [1e-4, 0.007, 0.1, 3.0])
def test_a_discretised_gaussian_s_256_levels_sum_to_1(std: float) -> None:
    mean = torch.tensor([-1.3, -1.0, -0.2, 0.0, 1 / 255, 0.9, 2.0]).double()[:, None].expand(7, 256)
    log_p = discretized_gaussian(LEVELS.expand(7, 256), mean, torch.tensor(2 * math.log(std)).double())
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(7).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("std", [0.007, 0.05, 0.5])
def test_discretised_gaussian_against_scipy_far_into_the_tails(std: float, dtype: torch.dtype) -> None:
    """Theirs is the difference of two distribution functions, of whichever tail is the smaller."""
    x, mean = LEVELS.expand(5, 256), torch.tensor([-1.0, -0.3, 0.1, 0.8, 1.2]).double()[:, None].expand(5, 256)
    above, below = (x - mean + BIN / 2) / std, (x - mean - BIN / 2) / std
    above, below = above.masked_fill(x == 1, math.inf), below.masked_fill(x == -1, -math.inf)
    far, near = torch.where(x > mean, -above, below), torch.where(x > mean, -below, above)
    log_far, log_near = (torch.from_numpy(log_ndtr(edge.numpy())) for edge in (far, near))
    expected = log_near + torch.log1p(-torch.exp(log_far - log_near))
    log_p = discretized_gaussian(x.to(dtype), mean.to(dtype), torch.tensor(2 * math.log(std), dtype=dtype))
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(log_p.double(), expected, rtol=tolerance, atol=tolerance)


def test_a_discretised_gaussian_has_finite_gradients() -> None:
    mean = torch.linspace(-2, 2, 256).requires_grad_()
    log_variance = torch.full((256,), -10.0).requires_grad_()
    discretized_gaussian(LEVELS.flip(0).float(), mean, log_variance).sum().backward()
    assert mean.grad.isfinite().all()
    assert log_variance.grad.isfinite().all()
    inner = torch.tensor([0.3, 0.31, 0.29]).double().requires_grad_()
    levels = LEVELS[torch.tensor([164, 255, 0])]
    assert torch.autograd.gradcheck(lambda m: discretized_gaussian(levels, m, m - 2), inner)


def test_a_bound_is_rebuilt_from_its_description() -> None:
    again = rebuild(describe(VariationalBound(100, 20, StaticThresholding(0.9), v=0.5)))
    assert (again.num_steps, again.evaluations, again.thresholding.bound, again.v) == (100, 20, 0.9, 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariationalBound(1), r"num_steps=1.*at least 2"),
        (lambda: VariationalBound(10, 11), r"evaluations=11: .*\[2, 10\]"),
        (lambda: VariationalBound(10, 1), r"evaluations=1: .*\[2, 10\]"),
        (lambda: VariationalBound(v=1.5), r"v=1.5.*\[0, 1\]"),
    ],
)
def test_impossible_bounds_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
