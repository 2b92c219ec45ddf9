import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from lit_generative.description import describe, rebuild
from lit_generative.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearBetaSchedule,
    RectifiedFlowSchedule,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
    per_image,
)

SCHEDULES = [
    LinearBetaSchedule(),
    LinearBetaSchedule(beta_min=0.01, beta_max=0.3, num_steps=10),
    CosineSchedule(),
    CosineSchedule(s=0.0),
    SigmoidSchedule(),
    SigmoidSchedule(start=0.0, end=3.0, tau=0.7),
    EDMSchedule(),
    RectifiedFlowSchedule(),
    ShiftedSchedule(CosineSchedule(), image_size=256),
    ShiftedSchedule(RectifiedFlowSchedule(), image_size=32),
    ShiftedSchedule(EDMSchedule(), image_size=128),
]
GRID = torch.arange(1001, dtype=torch.float64) / 1000

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def alpha_bars(scheduler: DDPMScheduler) -> Tensor:
    """The product of 1 - beta over the scheduler's steps, in float64, with the 1 of step 0."""
    return torch.cat([torch.ones(1).double(), (1 - scheduler.betas.double()).cumprod(0)])


@each_schedule
def test_snr_falls_strictly_from_clean_to_noisy(schedule: Schedule) -> None:
    log_snr = schedule.log_snr(GRID)
    assert (log_snr.diff() < 0).all()
    assert log_snr[0] > 10
    assert log_snr[-1] < -1


@each_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_alpha_and_sigma_have_that_log_snr(schedule: Schedule, dtype: torch.dtype) -> None:
    t = GRID.to(dtype).view(7, 11, 13)
    alpha, sigma = schedule(t)
    assert alpha.shape == sigma.shape == t.shape
    assert alpha.dtype == sigma.dtype == schedule.log_snr(t).dtype == torch.float32
    expected = 2 * (alpha.double().log() - sigma.double().log())
    torch.testing.assert_close(schedule.log_snr(t).double(), expected, atol=1e-5, rtol=0)
    if schedule.variance_preserving:
        torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), atol=3e-7, rtol=0)


@each_schedule
def test_the_ends_are_almost_clean_and_almost_noise(schedule: Schedule) -> None:
    (alpha_0, alpha_1), (sigma_0, sigma_1) = (c.tolist() for c in schedule(torch.tensor([0.0, 1.0])))
    assert alpha_0 == 1
    assert 0 < sigma_0 < 0.005
    assert 0 < alpha_1 <= 1
    assert sigma_1 >= 0.8
    beyond = schedule(torch.tensor([-0.5, 1.5]))
    assert [c.tolist() for c in beyond] == [[alpha_0, alpha_1], [sigma_0, sigma_1]]


@each_schedule
def test_gradients_by_time_are_finite_up_to_the_ends(schedule: Schedule) -> None:
    t = torch.tensor([0.0, 1e-12, 1e-6, 0.3, 1 - 1e-6, 1.0], requires_grad=True)
    for values in (schedule(t)[0], schedule(t)[1], schedule.log_snr(t)):
        (gradient,) = torch.autograd.grad(values.sum() + 0 * t.sum(), t)
        assert torch.isfinite(gradient).all()
        assert gradient[3] != 0 or (values == 1).all()


def test_gradients_by_time_are_right_at_the_ends_themselves() -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(EDMSchedule(sigma_min=1.0, sigma_max=3.0, rho=1.0)(t)[1].sum(), t)
    torch.testing.assert_close(gradient, torch.tensor([2.0, 2.0]).double())


@each_schedule
def test_time_of_log_snr_is_the_inverse(schedule: Schedule) -> None:
    t = torch.tensor([1e-6, 1e-4, 0.01, 0.2, 0.5, 0.9, 0.999])
    torch.testing.assert_close(schedule.time_of_log_snr(schedule.log_snr(t)), t, rtol=5e-6, atol=1e-7)
    # beyond the ends of the range
    beyond = schedule.time_of_log_snr(torch.tensor([100.0, -100.0]))
    torch.testing.assert_close(beyond, torch.tensor([0.0, 1.0]), atol=1e-4, rtol=0)


@each_schedule
def test_every_schedule_is_rebuilt_from_its_description(schedule: Schedule) -> None:
    rebuilt = rebuild(describe(schedule))
    assert type(rebuilt) is type(schedule)
    assert rebuilt.variance_preserving == schedule.variance_preserving
    assert torch.equal(rebuilt.log_snr(GRID), schedule.log_snr(GRID))
    assert torch.equal(rebuilt(GRID)[0], schedule(GRID)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_betas_agree_with_the_discrete_product_at_every_step(dtype: torch.dtype) -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    products = torch.cat([torch.ones(1).double(), (1 - betas).cumprod(0)])
    alpha, sigma = LinearBetaSchedule()(GRID.to(dtype))
    torch.testing.assert_close(alpha.double() ** 2, products, atol=1e-6, rtol=0)
    torch.testing.assert_close(alpha.double() ** 2, products, atol=0, rtol=3e-6)
    torch.testing.assert_close(sigma[1:].double() ** 2, 1 - products[1:], atol=0, rtol=3e-6)


def test_linear_betas_stay_between_neighbouring_steps_in_between() -> None:
    schedule = LinearBetaSchedule()
    t = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    before, here, after = (schedule.exact_log_snr(x) for x in (t - 0.0005, t, t + 0.0005))
    assert (before > here).all()
    assert (here > after).all()


@pytest.mark.parametrize(
    ("schedule", "name"),
    [(LinearBetaSchedule(), "linear"), (CosineSchedule(), "squaredcos_cap_v2")],
    ids=["linear", "cosine"],
)
def test_parity_with_diffusers_at_every_step(schedule: Schedule, name: str) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule=name)
    alpha, sigma = schedule(GRID)
    torch.testing.assert_close(alpha[1:].square(), scheduler.alphas_cumprod, atol=1e-6, rtol=0)
    expected = alpha_bars(scheduler)
    # the last steps too, although alpha^2 is 2e-9 at the cosine's end, where the clipped beta decides it
    torch.testing.assert_close(alpha.double().square(), expected, atol=0, rtol=2e-4)
    x, eps, steps = torch.randn(50, 1, 4, 4), torch.randn(50, 1, 4, 4), torch.arange(0, 1000, 20)
    alpha, sigma = (per_image(c, x) for c in schedule((steps + 1) / 1000))
    torch.testing.assert_close(alpha * x + sigma * eps, scheduler.add_noise(x, eps, steps), atol=1e-5, rtol=0)


def test_cosine_is_the_papers_formula() -> None:
    def f(t: Tensor) -> Tensor:
        return torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    t = GRID[:-1]
    torch.testing.assert_close(CosineSchedule()(t)[0].double() ** 2, f(t) / f(GRID[0]), atol=2e-7, rtol=0)


def test_sigmoid_is_the_papers_formula() -> None:
    first, last = torch.tensor([-3.0, 3.0]).double().sigmoid()
    expected = (last - (-3 + 6 * GRID).sigmoid()) / (last - first)
    torch.testing.assert_close(SigmoidSchedule()(GRID)[0].double() ** 2, expected, atol=2e-7, rtol=0)
    nearly_linear = SigmoidSchedule(tau=1000.0)(GRID)[0].double() ** 2
    torch.testing.assert_close(nearly_linear, 1 - GRID, atol=1e-5, rtol=0)


def test_edm_spaces_sigmas_as_karras_et_al() -> None:
    N, i = 18, torch.arange(18, dtype=torch.float64)
    expected = (80 ** (1 / 7) + i / (N - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    alpha, sigma = EDMSchedule()(1 - i / (N - 1))
    torch.testing.assert_close(sigma.double(), expected, atol=0, rtol=1e-6)
    assert (alpha == 1).all()
    assert not EDMSchedule().variance_preserving


def test_rectified_flow_is_a_straight_line() -> None:
    alpha, sigma = RectifiedFlowSchedule()(GRID)
    torch.testing.assert_close(alpha.double(), 1 - GRID, atol=4e-5, rtol=0)  # kept off 0 at the end
    torch.testing.assert_close(alpha[:-1].double(), (1 - GRID)[:-1], atol=0, rtol=2e-7)
    torch.testing.assert_close(sigma[1:-1].double(), GRID[1:-1], atol=0, rtol=2e-7)


def test_shifted_moves_the_log_snr_by_the_ratio_of_sizes() -> None:
    shifted = ShiftedSchedule(CosineSchedule(), image_size=256, reference_size=64)
    torch.testing.assert_close(shifted.log_snr(GRID), CosineSchedule().log_snr(GRID) - 2 * math.log(4))
    same = ShiftedSchedule(CosineSchedule(), image_size=64)
    torch.testing.assert_close(same(GRID)[0], CosineSchedule()(GRID)[0])


def test_noise_averaged_down_to_the_reference_is_as_strong_as_there() -> None:
    torch.manual_seed(0)
    _, sigma = ShiftedSchedule(EDMSchedule(), image_size=256)(torch.tensor(0.4))
    pooled = torch.nn.functional.avg_pool2d(sigma * torch.randn(8, 1, 256, 256), 4)
    assert pooled.std().item() == pytest.approx(EDMSchedule()(torch.tensor(0.4))[1].item(), rel=0.01)


def test_shifted_rectified_flow_is_the_shift_of_times() -> None:
    # Esser et al. 2024 eq. 23, for m / n = 4^2
    _, sigma = ShiftedSchedule(RectifiedFlowSchedule(), image_size=256)(GRID[1:-1])
    t = GRID[1:-1]
    torch.testing.assert_close(sigma.double(), 4 * t / (1 + 3 * t), atol=0, rtol=1e-6)


def test_one_value_per_image_multiplies_images() -> None:
    x = torch.ones(3, 2, 4, 5)
    assert torch.equal((per_image(torch.tensor([1.0, 2.0, 3.0]), x) * x)[:, 1, 2, 3], torch.tensor([1.0, 2.0, 3.0]))
    assert (per_image(torch.tensor(2.0), x) * x).shape == x.shape
    # unlike a number without dimensions, it does not take on the images' half precision
    assert (per_image(torch.tensor(2.0), x) * x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearBetaSchedule(beta_min=0.0), "beta_min=0.0"),
        (lambda: LinearBetaSchedule(beta_max=1.0), "beta_max=1.0"),
        (lambda: LinearBetaSchedule(beta_min=0.1, beta_max=0.02), "beta_min=0.1"),
        (lambda: LinearBetaSchedule(num_steps=0), "num_steps=0"),
        (lambda: CosineSchedule(s=-0.1), "s=-0.1"),
        (lambda: SigmoidSchedule(start=3.0), "start=3.0.*start < end"),
        (lambda: SigmoidSchedule(tau=0.0), "tau=0.0"),
        (lambda: EDMSchedule(sigma_min=0.0), "sigma_min=0.0"),
        (lambda: EDMSchedule(sigma_max=0.001), "sigma_max=0.001"),
        (lambda: EDMSchedule(rho=0.0), "rho=0.0"),
        (lambda: ShiftedSchedule(CosineSchedule(), image_size=0), "image_size=0"),
    ],
)
def test_impossible_schedules_are_refused(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
