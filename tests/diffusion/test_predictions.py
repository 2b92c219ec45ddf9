import pytest
import torch
from torch import Tensor

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
    per_image,
)

PREDICTIONS = [
    NoisePrediction(),
    SamplePrediction(),
    VelocityPrediction(),
    FlowVelocityPrediction(),
    EDMPrediction(),
    EDMPrediction(sigma_data=1.0),
]
SCHEDULES = [LinearBetaSchedule(), CosineSchedule(), EDMSchedule(), RectifiedFlowSchedule()]
TIMES = torch.tensor([0.0, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1.0])

each_prediction = pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def noised(schedule: Schedule, t: Tensor = TIMES) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return x_0, eps, x_t, alpha and sigma, an image for each time, all in float64."""
    torch.manual_seed(0)
    x0, eps = torch.rand(len(t), 2, 4, 4).double() * 2 - 1, torch.randn(len(t), 2, 4, 4).double()
    alpha, sigma = (per_image(c.double(), x0) for c in schedule(t))
    return x0, eps, alpha * x0 + sigma * eps, alpha, sigma


@each_prediction
@each_schedule
def test_image_and_noise_come_back_from_the_target_even_at_the_ends(prediction: Prediction, schedule: Schedule) -> None:
    x0, eps, x_t, alpha, sigma = noised(schedule)
    target = prediction.target(x0, eps, alpha, sigma)
    torch.testing.assert_close(prediction.to_x0(target, x_t, alpha, sigma), x0, atol=1e-5, rtol=0)
    torch.testing.assert_close(prediction.to_eps(target, x_t, alpha, sigma), eps, atol=1e-5, rtol=0)


@each_prediction
@each_schedule
def test_inverse_in_single_precision_is_as_good_as_the_ratio_of_image_and_noise_allows(
    prediction: Prediction, schedule: Schedule
) -> None:
    x0, eps, x_t, alpha, sigma = (c.float() for c in noised(schedule))
    target = prediction.target(x0, eps, alpha, sigma)
    from_target = prediction.to_x0(target, x_t, alpha, sigma)
    assert ((from_target - x0).abs() < 1e-5 * (1 + sigma / alpha)).all()
    noise = prediction.to_eps(target, x_t, alpha, sigma)
    assert ((noise - eps).abs() < 1e-5 * (1 + alpha / sigma)).all()


@each_prediction
@each_schedule
def test_estimates_of_image_and_noise_make_up_the_noisy_image(prediction: Prediction, schedule: Schedule) -> None:
    _, _, x_t, alpha, sigma = noised(schedule)
    output = torch.randn_like(x_t)  # any network's
    x0, eps = prediction.to_x0(output, x_t, alpha, sigma), prediction.to_eps(output, x_t, alpha, sigma)
    torch.testing.assert_close(alpha * x0 + sigma * eps, x_t, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(prediction.target(x0, eps, alpha, sigma), output, atol=1e-6, rtol=1e-6)


@each_prediction
@each_schedule
def test_error_scale_turns_errors_of_the_target_into_errors_of_the_noise(
    prediction: Prediction, schedule: Schedule
) -> None:
    x0, eps, x_t, alpha, sigma = noised(schedule, TIMES[2:-1])
    target = prediction.target(x0, eps, alpha, sigma)
    output = target + torch.randn_like(target)
    of_noise = (prediction.to_eps(output, x_t, alpha, sigma) - eps).square().sum((1, 2, 3))
    of_target = (output - target).square().sum((1, 2, 3))
    scale = prediction.error_scale(alpha, sigma)
    assert scale.shape == alpha.shape
    torch.testing.assert_close(scale.flatten() * of_target, of_noise)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (NoisePrediction(), lambda x0, eps, alpha, sigma: eps),
        (SamplePrediction(), lambda x0, eps, alpha, sigma: x0),
        (VelocityPrediction(), lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0),
        (FlowVelocityPrediction(), lambda x0, eps, alpha, sigma: eps - x0),
    ],
    ids=["noise", "sample", "velocity", "flow"],
)
def test_targets_are_what_their_names_say(prediction: Prediction, expected: object) -> None:
    x0, eps, _, alpha, sigma = noised(CosineSchedule())
    torch.testing.assert_close(prediction.target(x0, eps, alpha, sigma), expected(x0, eps, alpha, sigma))  # type: ignore[operator]


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (NoisePrediction(), lambda alpha, sigma: torch.ones_like(alpha)),
        (SamplePrediction(), lambda alpha, sigma: (alpha / sigma) ** 2),
        (VelocityPrediction(), lambda alpha, sigma: alpha**2),
        (EDMPrediction(0.5), lambda alpha, sigma: 0.25 * alpha**2 / (0.25 * alpha**2 + sigma**2)),
    ],
    ids=["noise", "sample", "velocity", "edm"],
)
def test_known_error_scales_where_variance_is_preserved(prediction: Prediction, expected: object) -> None:
    _, _, _, alpha, sigma = noised(CosineSchedule())
    scale = prediction.error_scale(alpha, sigma)
    torch.testing.assert_close(scale, expected(alpha, sigma), rtol=1e-6, atol=0)  # type: ignore[operator]


def test_flow_velocity_is_the_derivative_of_the_straight_path() -> None:
    x0, eps, _, alpha, sigma = noised(RectifiedFlowSchedule())

    def at(t: Tensor) -> Tensor:
        alpha_t, sigma_t = (per_image(c.double(), x0) for c in RectifiedFlowSchedule()(t))
        return alpha_t * x0 + sigma_t * eps

    derivative = (at(torch.tensor(0.501)) - at(torch.tensor(0.499))) / 0.002
    torch.testing.assert_close(FlowVelocityPrediction().target(x0, eps, alpha, sigma), derivative, atol=2e-4, rtol=0)


def test_velocity_is_the_derivative_by_the_angle() -> None:
    x0, eps = torch.randn(2, 5).double()
    at, step = torch.tensor(0.7, dtype=torch.float64), 1e-4
    before, after = (phi.cos() * x0 + phi.sin() * eps for phi in (at - step, at + step))
    torch.testing.assert_close(VelocityPrediction().target(x0, eps, at.cos(), at.sin()), (after - before) / (2 * step))


@each_schedule
def test_edm_is_the_preconditioning_of_karras_et_al(schedule: Schedule) -> None:
    x0, eps, x_t, alpha, sigma = noised(schedule, TIMES[2:-1])
    x, s, data = x_t / alpha, sigma / alpha, 0.5
    c_skip, c_out = data**2 / (s**2 + data**2), s * data / (s**2 + data**2).sqrt()
    c_in = 1 / (s**2 + data**2).sqrt()
    prediction, output = EDMPrediction(data), torch.randn_like(x_t)
    torch.testing.assert_close(prediction.to_x0(output, x_t, alpha, sigma), c_skip * x + c_out * output)
    torch.testing.assert_close(prediction.target(x0, eps, alpha, sigma), (x0 - c_skip * x) / c_out)
    torch.testing.assert_close(prediction.input_scale(alpha, sigma) * x_t, c_in * x)


@each_schedule
def test_edm_keeps_the_networks_input_and_target_at_unit_variance(schedule: Schedule) -> None:
    torch.manual_seed(0)
    x0, eps = 0.3 * torch.randn(7, 20_000), torch.randn(7, 20_000)
    alpha, sigma = (per_image(c, x0) for c in schedule(TIMES[1:]))
    prediction = EDMPrediction(sigma_data=0.3)
    x_t = alpha * x0 + sigma * eps
    for values in (prediction.input_scale(alpha, sigma) * x_t, prediction.target(x0, eps, alpha, sigma)):
        torch.testing.assert_close(values.std(1), torch.ones(7), atol=0.03, rtol=0)


def test_edm_with_unit_data_is_the_velocity_up_to_sign() -> None:
    x0, eps, _, alpha, sigma = noised(CosineSchedule())
    velocity, edm = (p.target(x0, eps, alpha, sigma) for p in (VelocityPrediction(), EDMPrediction(sigma_data=1.0)))
    torch.testing.assert_close(edm, -velocity, atol=1e-6, rtol=0)


def test_only_edm_scales_the_input() -> None:
    alpha, sigma = CosineSchedule()(TIMES)
    for prediction in PREDICTIONS[:4]:
        assert (prediction.input_scale(alpha, sigma) == 1).all()


@each_prediction
def test_every_prediction_is_rebuilt_from_its_description(prediction: Prediction) -> None:
    x0, eps, _, alpha, sigma = noised(CosineSchedule())
    rebuilt = rebuild(describe(prediction))
    assert type(rebuilt) is type(prediction)
    assert torch.equal(rebuilt.target(x0, eps, alpha, sigma), prediction.target(x0, eps, alpha, sigma))


@each_prediction
def test_half_precision_outputs_give_single_precision_images(prediction: Prediction) -> None:
    _, _, x_t, alpha, sigma = (c.float() for c in noised(CosineSchedule()))
    assert prediction.to_x0(x_t.bfloat16(), x_t, alpha, sigma).dtype == torch.float32


def test_a_standard_deviation_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sigma_data=0.*positive"):
        EDMPrediction(sigma_data=0)
