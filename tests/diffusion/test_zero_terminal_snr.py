"""Schedules that end in noise alone (Lin et al. 2024): what they are, and what learns and samples with them."""

import pytest
import torch
from analytic import GaussianData, image_gaussian
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from known_networks import MEAN, STD, Exact, Stub

from lit_generative import DDPM
from lit_generative.description import describe, rebuild
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    CosineSchedule,
    DiscreteBoundWeight,
    DPMSolverPP2M,
    EDMPrediction,
    EDMSchedule,
    EDMWeight,
    FlowVelocityPrediction,
    GridTimes,
    HeunSampler,
    LearnedVariance,
    LinearBetaSchedule,
    LogSNRSpacing,
    MinSNRWeight,
    NoisePrediction,
    Prediction,
    RectifiedFlowSchedule,
    ResampledSpacing,
    SamplePrediction,
    Sampler,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
    SoftMinSNRWeight,
    UniformSpacing,
    VariationalBoundWeight,
    VelocityPrediction,
    Weight,
    ZeroTerminalSNRSchedule,
)
from lit_generative.diffusion.editing import encode

INNER = [
    LinearBetaSchedule(),
    CosineSchedule(),
    SigmoidSchedule(),
    RectifiedFlowSchedule(),
    ShiftedSchedule(CosineSchedule(), 32),
    ShiftedSchedule(RectifiedFlowSchedule(), 256),
]
SAMPLERS = [
    AncestralSampler(150, v=1.0),
    DDIM(60),
    DDIM(150, LogSNRSpacing(), eta=1.0),
    DPMSolverPP2M(30),
    DPMSolverPP2M(30, LogSNRSpacing()),
    DPMSolverPP2M(30, eta=0.5),
    HeunSampler(30),
    HeunSampler(30, UniformSpacing()),
    AncestralSampler(150, ResampledSpacing(UniformSpacing(), jump=50, passes=2)),
]
PREDICTIONS = [VelocityPrediction(), SamplePrediction(), FlowVelocityPrediction(), EDMPrediction()]


def name(thing: object) -> str:
    inner = getattr(thing, "schedule", None)
    return type(thing).__name__ + (f" of {type(inner).__name__}" if inner else "")


@pytest.mark.parametrize("inner", INNER, ids=name)
def test_alpha_ends_at_0_begins_at_1_and_falls_on_the_same_path(inner: Schedule) -> None:
    schedule, t = ZeroTerminalSNRSchedule(inner), torch.linspace(0, 1, 2001, dtype=torch.float64)
    alpha, sigma = (level.double() for level in schedule(t))
    assert alpha[-1] == 0
    assert sigma[-1] == 1
    assert (sigma > 0).all()
    assert (alpha.diff() <= 0).all()
    assert (schedule.exact_log_snr(t[:-1]).diff() < 0).all()
    assert alpha[0].item() == pytest.approx(1, abs=1e-6)
    total = alpha + sigma if inner.is_straight else alpha**2 + sigma**2
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    before, end = inner(t)[0].double(), inner(t[-1:])[0].double()
    torch.testing.assert_close(alpha, (before - end) / (1 - end), rtol=1e-5, atol=1e-6)  # their algorithm 1
    assert schedule.log_snr(t).isfinite().all()
    t[:5] = torch.tensor([1e-9, 1e-7, 1e-5, 1e-4, 2e-4])
    kept = schedule.exact_log_snr(t[:5]) - inner.exact_log_snr(t[:5])
    assert kept.abs().max() < 0.05  # next to the image it is as before
    assert schedule.time_of_log_snr(schedule.log_snr(t[400:1900])).numpy() == pytest.approx(t[400:1900].numpy())


def test_on_ddpm_s_grid_it_is_diffusers_own() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000)
    theirs = (1 - rescale_zero_terminal_snr(betas).double()).cumprod(0).sqrt()
    ours = ZeroTerminalSNRSchedule(LinearBetaSchedule())(torch.arange(1, 1001) / 1000)[0].double()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_there_is_no_such_end_where_alpha_is_1() -> None:
    for inner in (EDMSchedule(), ShiftedSchedule(EDMSchedule(), 32)):
        with pytest.raises(ValueError, match=r"schedule=\w+: its alpha does not fall to 0; take CosineSchedule"):
            ZeroTerminalSNRSchedule(inner)


def test_it_may_be_shifted_and_is_rebuilt_from_its_description() -> None:
    schedule = ShiftedSchedule(ZeroTerminalSNRSchedule(CosineSchedule(0.01)), 32)
    assert schedule.ends_in_noise
    assert schedule(torch.ones(()))[0] == 0
    again = rebuild(describe(schedule))
    t = torch.linspace(0, 1, 9)
    assert torch.equal(again.log_snr(t), schedule.log_snr(t))


def test_a_network_that_predicts_the_noise_is_refused() -> None:
    for schedule in (ZeroTerminalSNRSchedule(CosineSchedule()), ShiftedSchedule(ZeroTerminalSNRSchedule(INNER[0]), 32)):
        for prediction in (None, NoisePrediction()):
            with pytest.raises(ValueError, match=r"prediction=NoisePrediction: .*alpha is 0.*take VelocityPrediction"):
                DDPM(Stub(), (1, 4, 4), schedule, prediction)
        for prediction in PREDICTIONS:
            DDPM(Stub(), (1, 4, 4), schedule, prediction)


@pytest.mark.parametrize("weight", [
    None, MinSNRWeight(), SoftMinSNRWeight(), EDMWeight(), "bound", "discrete"
], ids=lambda w: w if isinstance(w, str) else type(w).__name__)  # fmt: skip
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=name)
@pytest.mark.parametrize("inner", [LinearBetaSchedule(), RectifiedFlowSchedule()], ids=name)
def test_losses_and_gradients_at_the_end_are_finite(
    inner: Schedule, prediction: Prediction, weight: Weight | str | None
) -> None:
    schedule = ZeroTerminalSNRSchedule(inner)
    if isinstance(weight, str):
        weight = {"bound": VariationalBoundWeight, "discrete": DiscreteBoundWeight}[weight](schedule)
    network = Stub()
    model = DDPM(network, (1, 4, 4), schedule, prediction, weight, GridTimes())
    x, noise = torch.randn(2, 2, 1, 4, 4)
    t = torch.tensor([1.0, 0.9])
    losses = model.losses_at(t, x, noise)
    losses["loss"].sum().backward()
    assert losses["loss"].isfinite().all()
    assert (losses["loss"] >= 0).all()
    assert losses["noise_mse"][0] < 1e-12  # x_t is the noise
    assert network.scale.grad.isfinite()


def test_without_a_weight_the_end_counts_like_any_other_time() -> None:
    schedule = ZeroTerminalSNRSchedule(CosineSchedule())
    model = DDPM(Stub(lambda x, t, y: 0 * x), (1, 4, 4), schedule, VelocityPrediction())
    x, noise = torch.randn(2, 3, 1, 4, 4)
    loss = model.losses_at(torch.ones(3), x, noise)["loss"]
    torch.testing.assert_close(loss, x.square().flatten(1).mean(1))  # v is -x_0 there


def test_a_learned_variance_and_the_bound_reach_the_end() -> None:
    schedule = ZeroTerminalSNRSchedule(CosineSchedule())
    network = Stub(lambda x, t, y: torch.cat([x, 0 * x], 1))
    model = DDPM(network, (1, 4, 4), schedule, VelocityPrediction(), variance=LearnedVariance())
    x, noise = torch.rand(2, 3, 1, 4, 4)
    assert model.losses_at(torch.tensor([1.0, 0.9995, 0.001]), x, noise)["bound_term"].isfinite().all()
    exact = DDPM(Exact(schedule, VelocityPrediction()), (1, 4, 4), schedule, VelocityPrediction())
    images = ((MEAN + STD * torch.randn(4, 1, 4, 4)).clamp(-1, 1) * 127.5).round() / 127.5
    found = exact.likelihoods(images, evaluations=40)
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("inner", [LinearBetaSchedule(), RectifiedFlowSchedule()], ids=name)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: f"{type(s).__name__} {type(s.spacing).__name__}")
def test_samplers_begin_from_noise_alone(sampler: Sampler, inner: Schedule) -> None:
    schedule, data = ZeroTerminalSNRSchedule(inner), GaussianData([0.3, -0.5], [[0.25, 0.1], [0.1, 0.09]])
    assert sampler.levels(schedule)[0][1:] == (0, 1)
    generator = torch.Generator().manual_seed(0)
    x_T = torch.randn(5000, 2, 1, 1, generator=generator, dtype=torch.float64)
    x = sampler.sample(data.denoiser(schedule), x_T, schedule, generator=generator).flatten(1)
    torch.testing.assert_close(x.mean(0), data.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(x.T.cov(), data.covariance, rtol=0.2, atol=0)


def test_it_takes_the_brightness_error_away() -> None:
    images, sampler = image_gaussian(), DDIM(25)
    assert images.frechet(sampler, LinearBetaSchedule())[0] > 0.1
    assert images.frechet(sampler, ZeroTerminalSNRSchedule(LinearBetaSchedule()))[0] < 1e-20


@pytest.mark.parametrize("sampler", [DDIM(60), HeunSampler(30), DPMSolverPP2M(60)], ids=name)
def test_images_are_traced_back_to_noise_alone_and_found_again(sampler: Sampler) -> None:
    schedule, data = ZeroTerminalSNRSchedule(CosineSchedule()), GaussianData([0.3, -0.5], [[0.25, 0.1], [0.1, 0.09]])
    x0 = data.mean.view(1, 2, 1, 1) + 0.3 * torch.randn(16, 2, 1, 1).double()
    x_T = encode(sampler, data.denoiser(schedule), x0, schedule)
    again = sampler.sample(data.denoiser(schedule), x_T, schedule)
    torch.testing.assert_close(again, x0, rtol=0, atol=0.06)
