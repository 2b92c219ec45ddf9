"""What a DDPM makes: samples of the data's distribution, guided, reproducible, and edited images."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from known_networks import MEAN, STD, Exact, Stub
from torch import Tensor

from lit_generative import DDPM
from lit_generative.contracts import (
    Interpolates,
    InterpolatesSamples,
    Inverts,
    MeasuresNoiseLevels,
    SamplesInSteps,
    Trajectories,
)
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    ClassifierFree,
    CosineSchedule,
    DPMSolverPP2M,
    EDMPrediction,
    EDMSchedule,
    FlowVelocityPrediction,
    HeunSampler,
    LearnedVariance,
    LinearBetaSchedule,
    LogSNRSpacing,
    NoisePrediction,
    Prediction,
    RectifiedFlowSchedule,
    ResampledSpacing,
    SamplePrediction,
    Sampler,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
    StaticThresholding,
    UniformSpacing,
    VelocityPrediction,
)

SHAPE = (1, 16, 16)
SCHEDULES: list[Schedule] = [
    LinearBetaSchedule(),
    CosineSchedule(),
    SigmoidSchedule(),
    EDMSchedule(),
    RectifiedFlowSchedule(),
    ShiftedSchedule(CosineSchedule(), 128),
]
PREDICTIONS: list[Prediction] = [
    NoisePrediction(),
    SamplePrediction(),
    VelocityPrediction(),
    FlowVelocityPrediction(),
    EDMPrediction(0.3),
]
SAMPLERS: dict[str, Callable[[], Sampler]] = {
    "ddim": lambda: DDIM(7),
    "stochastic": lambda: DDIM(7, eta=1.0, thresholding=StaticThresholding()),
    "heun": lambda: HeunSampler(5),
    "2m": lambda: DPMSolverPP2M(6, LogSNRSpacing()),
    "ancestral": lambda: AncestralSampler(4),
    "resampled": lambda: AncestralSampler(6, ResampledSpacing(UniformSpacing(), jump=2, passes=3)),
}
EVERY_SAMPLER = pytest.mark.parametrize("sampler", SAMPLERS)
Interval = tuple[float, float]
IMAGES, NONE = 0.1, -0.2  # what is made for class 0 and for no class


def by_class(x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    """A network of two classes that predicts flat images."""
    assert y is not None
    return torch.tensor([IMAGES, 0.4, NONE])[y].view(-1, 1, 1, 1).expand_as(x)


def conditional(network: Stub, scale: float = 1.0, interval: Interval | None = None, **options: Any) -> DDPM:
    guidance = ClassifierFree(scale, interval)
    return DDPM(network, SHAPE, CosineSchedule(), SamplePrediction(), guidance=guidance, num_classes=2, **options)


def exact(sampler: Sampler, schedule: Schedule | None = None, prediction: Prediction | None = None) -> DDPM:
    schedule, prediction = schedule or CosineSchedule(), prediction or VelocityPrediction()
    return DDPM(Exact(schedule, prediction), SHAPE, schedule, prediction, sampler=sampler)


def source(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------- samples


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)
def test_the_exact_network_gives_the_datas_distribution(schedule: Schedule, prediction: Prediction) -> None:
    x = exact(DPMSolverPP2M(30, LogSNRSpacing()), schedule, prediction).sample(32, generator=source())
    assert x.shape == (32, *SHAPE)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.01)  # 8192 pixels: 0.002 is one standard deviation
    assert x.std().item() == pytest.approx(STD, rel=0.05)


@EVERY_SAMPLER
def test_the_last_of_the_trajectory_is_the_sample(sampler: str) -> None:
    model = exact(SAMPLERS[sampler]())
    steps = model.trajectory(4, generator=source())
    assert len(steps) == 1 + model.sampler.steps * model.sampler.spacing.passes
    assert steps[0].std().item() == pytest.approx(1, abs=0.1)  # noise, at first
    assert len({step.sum().item() for step in steps}) == len(steps)  # and none is written over by the next
    assert torch.equal(steps[-1].clamp(-1, 1), model.sample(4, generator=source()))


def test_the_trajectory_begins_at_the_noise_of_the_schedule() -> None:
    assert exact(HeunSampler(5), EDMSchedule()).trajectory(64, generator=source())[0].std().item() == pytest.approx(
        80, rel=0.02
    )


@EVERY_SAMPLER
def test_the_generator_decides_all(sampler: str) -> None:
    model = exact(SAMPLERS[sampler]())
    model.train()
    image, known = torch.zeros(3, *SHAPE), torch.rand(1, *SHAPE) < 0.5
    makers: list[Callable[[torch.Generator | None], Tensor]] = [
        lambda g: model.sample(3, generator=g),
        lambda g: model.trajectory(3, generator=g)[-1],
        lambda g: model.inpaint(image, known, generator=g),
        lambda g: model.sdedit(image, 0.5, generator=g),
    ]
    for make in makers:
        before = torch.get_rng_state()
        first, again, other = make(source(1)), make(source(1)), make(source(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert not torch.equal(make(None), make(None))  # then torch's own generator is drawn from
    model.loss_by_noise(image)
    assert all(module.training for module in model.modules())


# ---------------------------------------------------------------- guidance


@pytest.mark.parametrize(("scale", "expected"), [(0.0, NONE), (1.0, IMAGES), (3.0, NONE + 3 * (IMAGES - NONE))])
def test_guidance_goes_beyond_the_class(scale: float, expected: float) -> None:
    network = Stub(by_class)
    model = conditional(network, scale)
    torch.testing.assert_close(model.sample(2, torch.tensor([0, 0])), torch.full((2, *SHAPE), expected))
    asked = {tuple(y.tolist()) for _, _, y in network.asked if y is not None}
    assert asked == ({(0, 0)} if scale == 1 else {(0, 0), (2, 2)})


def test_guidance_is_limited_to_its_interval() -> None:
    network = Stub(by_class)
    model = conditional(network, 3.0, (0.25, 0.75), sampler=DDIM(8))
    model.sample(1, torch.tensor([1]), generator=source())
    unconditional = [t.item() for _, t, y in network.asked if y == torch.tensor([2])]
    assert unconditional == [0.75, 0.625, 0.5, 0.375]
    assert len(network.asked) == 12


@EVERY_SAMPLER
@pytest.mark.parametrize("interval", [None, (0.25, 0.75)], ids=str)
@pytest.mark.parametrize("scale", [None, 1.0, 2.0], ids=str)
def test_evaluations_of_the_network_are_declared(sampler: str, scale: float | None, interval: Interval | None) -> None:
    network = Stub(lambda x, t, y: 0.5 * x)
    labels, options = torch.tensor([1, 0, 1]), {"sampler": SAMPLERS[sampler]()}
    model = conditional(network, 1.0 if scale is None else scale, interval, **options)
    model.guidance = None if scale is None else model.guidance
    counted = model.network_evaluations
    assert not network.asked
    assert model.sampling["evaluations"] == counted
    assert ("guidance" in model.sampling) == (scale == 2)
    model.sample(3, labels)
    assert len(network.asked) == counted


@pytest.mark.parametrize("scale", [1, 2])
def test_evaluations_are_declared_with_a_learned_variance(scale: int) -> None:
    network = Stub(lambda x, t, y: torch.cat([0.5 * x, x], 1))
    model = conditional(network, scale, sampler=AncestralSampler(4, v=None), variance=LearnedVariance())
    model.sample(2, torch.tensor([0, 1]))
    assert len(network.asked) == model.network_evaluations == 4 * scale


def test_each_image_is_guided_away_from_its_own_estimate_with_a_learned_variance() -> None:
    network = Stub(lambda x, t, y: torch.cat([x * (1 + y.view(-1, 1, 1, 1)), x], 1))
    model = conditional(network, 2.0, variance=LearnedVariance())
    x, t = torch.randn(2, *SHAPE), torch.full((2,), 0.5)
    estimate = model.denoiser(torch.tensor([0, 1]))(x, t)
    torch.testing.assert_close(estimate.x0, torch.stack([(3 + 2 * (1 - 3)) * x[0], (3 + 2 * (2 - 3)) * x[1]]))
    torch.testing.assert_close(estimate.v, (x + 1) / 2)


def test_guidance_is_exchanged_after_training() -> None:
    model, y = conditional(Stub(by_class)), torch.tensor([0, 0])
    for guidance, expected in ((ClassifierFree(2.0), 2 * IMAGES - NONE), (None, IMAGES)):
        model.guidance = guidance
        torch.testing.assert_close(model.sample(2, y), torch.full((2, *SHAPE), expected))


# ---------------------------------------------------------------- editing


@EVERY_SAMPLER
def test_inpainting_keeps_what_is_known_and_makes_up_the_rest(sampler: str) -> None:
    model, image = exact(SAMPLERS[sampler]()), torch.rand(8, *SHAPE, generator=source()) * 2 - 1
    known = torch.arange(16) < 8  # the left half
    x = model.inpaint(image, known, generator=source())
    assert torch.equal(x[..., :8], image[..., :8])
    made_up = x[..., 8:]
    assert made_up.mean().item() == pytest.approx(MEAN, abs=0.1)
    assert (made_up - image[..., 8:]).abs().mean() > 0.3


def test_remaking_from_almost_no_noise_gives_the_image() -> None:
    model, image = exact(DDIM(5)), torch.rand(8, *SHAPE, generator=source()) * 2 - 1
    torch.testing.assert_close(model.sdedit(image, 1e-5, generator=source()), image, rtol=0, atol=0.01)
    anew = model.sdedit(image, 1.0, generator=source())
    assert anew.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert (anew - image).abs().mean() > 0.3


# ---------------------------------------------------------------- errors and contracts


def test_it_has_what_callbacks_and_comparisons_ask_for() -> None:
    protocols = (Interpolates, InterpolatesSamples, Inverts, MeasuresNoiseLevels, SamplesInSteps, Trajectories)
    assert all(isinstance(exact(DDIM(2)), protocol) for protocol in protocols)


@pytest.mark.parametrize("make", ["trajectory", "inpaint", "sdedit"])
def test_labels_are_asked_for(make: str) -> None:
    image = torch.zeros(2, *SHAPE)
    calls: dict[str, Callable[[DDPM, Tensor | None], Any]] = {
        "trajectory": lambda model, y: model.trajectory(2, y),
        "inpaint": lambda model, y: model.inpaint(image, image > 0, y),
        "sdedit": lambda model, y: model.sdedit(image, 0.5, y),
    }
    with pytest.raises(ValueError, match=r"y has shape None: a model of classes needs labels \(2,\)"):
        calls[make](conditional(Stub(by_class)), None)
    with pytest.raises(ValueError, match="y has labels 2 to 2: the classes are 0 to 1"):
        calls[make](conditional(Stub(by_class)), torch.tensor([2, 2]))
    with pytest.raises(ValueError, match="the model is unconditional"):
        calls[make](exact(DDIM(2)), torch.tensor([0, 1]))


def test_a_start_outside_of_time_is_refused() -> None:
    with pytest.raises(ValueError, match=r"start=1\.5.*\(0, 1\]"):
        exact(DDIM(2)).sdedit(torch.zeros(1, *SHAPE), 1.5)
