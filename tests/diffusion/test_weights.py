import pytest
import torch

from lit_generative.description import describe, rebuild
from lit_generative.diffusion.predictions import (
    EDMPrediction,
    FlowVelocityPrediction,
    NoisePrediction,
    Prediction,
    SamplePrediction,
    VelocityPrediction,
)
from lit_generative.diffusion.schedules import (
    CosineSchedule,
    EDMSchedule,
    LinearBetaSchedule,
    RectifiedFlowSchedule,
    Schedule,
    ShiftedSchedule,
    per_image,
)
from lit_generative.diffusion.weights import (
    DiscreteBoundWeight,
    EDMWeight,
    MinSNRWeight,
    SimpleWeight,
    SoftMinSNRWeight,
    VariationalBoundWeight,
    Weight,
)

WEIGHTS = [
    SimpleWeight(),
    VariationalBoundWeight(CosineSchedule()),
    DiscreteBoundWeight(LinearBetaSchedule()),
    DiscreteBoundWeight(CosineSchedule(), num_steps=50),
    MinSNRWeight(),
    SoftMinSNRWeight(),
    EDMWeight(),
]
LOG_SNR = torch.linspace(-9.5, 9.0, 75)
SNR = LOG_SNR.exp()

each_weight = pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: type(w).__name__)


@each_weight
def test_weights_are_finite_and_not_negative_at_all_noise_levels(weight: Weight) -> None:
    log_snr = torch.cat([LOG_SNR, torch.tensor([-20.0, 23.0])])
    values = weight(log_snr)
    assert values.shape == log_snr.shape
    assert values.dtype == torch.float32
    assert torch.isfinite(values).all()
    assert (values >= 0).all()


@each_weight
@pytest.mark.parametrize(
    "schedule", [CosineSchedule(), EDMSchedule(), RectifiedFlowSchedule()], ids=lambda s: type(s).__name__
)
def test_the_loss_of_an_estimate_does_not_depend_on_the_prediction(weight: Weight, schedule: Schedule) -> None:
    torch.manual_seed(0)
    t = torch.linspace(0.05, 0.95, 9)
    x0, eps, x0_hat = torch.randn(3, 9, 1, 4, 4).double()
    alpha, sigma = (per_image(c.double(), x0) for c in schedule(t))
    x_t = alpha * x0 + sigma * eps
    eps_hat = (x_t - alpha * x0_hat) / sigma
    expected = weight(schedule.log_snr(t)) * (eps - eps_hat).square().sum((1, 2, 3))
    predictions: list[Prediction] = [
        NoisePrediction(),
        SamplePrediction(),
        VelocityPrediction(),
        FlowVelocityPrediction(),
        EDMPrediction(),
    ]
    for prediction in predictions:
        target, output = (prediction.target(x, e, alpha, sigma) for x, e in ((x0, eps), (x0_hat, eps_hat)))
        scale = weight(schedule.log_snr(t)) * prediction.error_scale(alpha, sigma).flatten()
        torch.testing.assert_close(scale * (target - output).square().sum((1, 2, 3)), expected)


@each_weight
def test_every_weight_is_rebuilt_from_its_description(weight: Weight) -> None:
    rebuilt = rebuild(describe(weight))
    assert type(rebuilt) is type(weight)
    assert torch.equal(rebuilt(LOG_SNR), weight(LOG_SNR))


def test_simple_is_one() -> None:
    assert (SimpleWeight()(LOG_SNR) == 1).all()


def test_min_snr_limits_the_weight_of_the_images_error() -> None:
    of_x0 = MinSNRWeight(gamma=5)(LOG_SNR) * SNR
    torch.testing.assert_close(of_x0, SNR.clamp(max=5))


def test_min_snr_in_terms_of_the_velocity() -> None:
    # Hang et al. 2023 section 3: min(SNR, gamma) / (SNR + 1)
    t = torch.linspace(0.01, 0.99, 50)
    snr = CosineSchedule().log_snr(t).exp()
    scale = MinSNRWeight(gamma=5)(snr.log()) * VelocityPrediction().error_scale(*CosineSchedule()(t))
    torch.testing.assert_close(scale, snr.clamp(max=5) / (snr + 1), rtol=1e-5, atol=0)


def test_soft_min_snr_is_half_the_limit_at_gamma_and_the_hard_one_far_from_it() -> None:
    soft, hard = SoftMinSNRWeight(gamma=4), MinSNRWeight(gamma=4)
    assert soft(torch.tensor(4.0).log()).item() == pytest.approx(0.5)
    assert (soft(LOG_SNR) < hard(LOG_SNR)).all()
    far = torch.tensor([-15.0, 18.0])
    torch.testing.assert_close(soft(far), hard(far), rtol=1e-5, atol=0)
    sigma = torch.tensor([0.01, 0.3, 2.0])  # Crowson et al. 2024
    of_x0 = soft(-2 * sigma.log()) / sigma**2
    torch.testing.assert_close(of_x0, 1 / (sigma**2 + 1 / 4))


@pytest.mark.parametrize("schedule", [EDMSchedule(), CosineSchedule()], ids=["edm", "cosine"])
def test_edm_weights_the_preconditioned_network_evenly(schedule: Schedule) -> None:
    t = torch.linspace(0, 0.99, 50)
    scale = EDMWeight(sigma_data=0.4)(schedule.log_snr(t)) * EDMPrediction(sigma_data=0.4).error_scale(*schedule(t))
    torch.testing.assert_close(scale, torch.ones(50), rtol=1e-5, atol=0)


def test_edm_weight_is_that_of_the_papers_table() -> None:
    sigma = torch.tensor([0.002, 0.3, 1.0, 80.0])
    of_x0 = EDMWeight(sigma_data=0.5)(-2 * sigma.log()) / sigma**2
    torch.testing.assert_close(of_x0, (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2)


def test_bound_of_rectified_flow_is_known() -> None:
    t = torch.tensor([1e-5, 0.01, 0.3, 0.5, 0.99])
    weight = VariationalBoundWeight(RectifiedFlowSchedule())(RectifiedFlowSchedule().log_snr(t))
    torch.testing.assert_close(weight, 1 / (t * (1 - t)), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    "schedule", [LinearBetaSchedule(), CosineSchedule(), EDMSchedule(), ShiftedSchedule(CosineSchedule(), 128)]
)
def test_bound_is_the_derivative_of_the_log_snr(schedule: Schedule) -> None:
    t = torch.tensor([0.0105, 0.2005, 0.5005, 0.9005], requires_grad=True)
    (slope,) = torch.autograd.grad(schedule.log_snr(t).sum(), t)
    weight = VariationalBoundWeight(schedule)(schedule.log_snr(t.detach()))
    torch.testing.assert_close(weight, -slope / 2, rtol=1e-3, atol=0)


@pytest.mark.parametrize("schedule", [CosineSchedule(), EDMSchedule(), ShiftedSchedule(CosineSchedule(), 128)])
def test_bounds_integral_is_the_fall_of_the_log_snr(schedule: Schedule) -> None:
    t = 0.1 + 0.8 * (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    mean = VariationalBoundWeight(schedule)(schedule.log_snr(t)).double().mean()
    ends = schedule.log_snr(torch.tensor([0.1, 0.9]))
    assert 0.8 * mean.item() == pytest.approx((ends[0] - ends[1]).item() / 2, rel=1e-4)


def test_discrete_bound_is_that_of_ho_et_al() -> None:
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    variance = beta.clone()  # beta_1 at the first step, the posterior's later on
    variance[1:] *= (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    expected = beta**2 / (2 * variance * (1 - beta) * (1 - alpha_bar))
    t = torch.arange(1, 1001) / 1000
    weight = DiscreteBoundWeight(LinearBetaSchedule(), num_steps=1000)(LinearBetaSchedule().log_snr(t))
    torch.testing.assert_close(weight.double() / 1000, expected, rtol=1e-5, atol=0)


def test_discrete_bound_is_the_divergence_of_two_gaussians() -> None:
    # KL(q(x_s|x_t, x_0) || p(x_s|x_t)): same variance, and means that differ by the estimate of x_0
    schedule, T, i, error = CosineSchedule(), 20, 8, 0.3  # error: |x_0 - x_0_hat|
    (alpha_s, sigma_s), (alpha_t, sigma_t) = (
        [c.double().item() for c in schedule(torch.tensor(k / T))] for k in (i - 1, i)
    )
    ratio = alpha_t / alpha_s  # of x_t given x_s, with variance step
    step = sigma_t**2 - ratio**2 * sigma_s**2
    variance = sigma_s**2 * step / sigma_t**2
    difference = alpha_s * step / sigma_t**2 * error
    divergence = difference**2 / (2 * variance)
    weight = DiscreteBoundWeight(schedule, num_steps=T)(schedule.log_snr(torch.tensor(i / T))).item()
    assert weight * (alpha_t / sigma_t * error) ** 2 / T == pytest.approx(divergence, rel=1e-4)


def test_discrete_bound_tends_to_the_continuous_one() -> None:
    log_snr = CosineSchedule().log_snr(torch.tensor([0.1, 0.3, 0.5, 0.9]))
    continuous = VariationalBoundWeight(CosineSchedule())(log_snr)
    errors = [
        (DiscreteBoundWeight(CosineSchedule(), num_steps=T)(log_snr) / continuous - 1).abs().max()
        for T in (100, 1000, 10000)
    ]
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 2e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinSNRWeight(gamma=0), "gamma=0.*positive"),
        (lambda: SoftMinSNRWeight(gamma=-1), "gamma=-1.*positive"),
        (lambda: EDMWeight(sigma_data=0), "sigma_data=0.*positive"),
        (lambda: DiscreteBoundWeight(CosineSchedule(), num_steps=0), "num_steps=0.*at least 1"),
    ],
)
def test_impossible_weights_are_refused(make: type[Weight], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
