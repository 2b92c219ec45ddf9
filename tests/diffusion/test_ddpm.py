"""What a DDPM learns: its losses have known values, and each hook changes what it should."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from known_networks import MEAN, STD, Exact, Stub
from torch import Tensor
from users_ddpms import InputPerturbed, OffsetNoise, PerceptionWeighted

from lit_generative import DDPM, ImageDataModule
from lit_generative.diffusion import (
    ClassifierFree,
    CosineSchedule,
    EDMPrediction,
    EDMSchedule,
    Estimate,
    FlowVelocityPrediction,
    LinearBetaSchedule,
    MinSNRWeight,
    NoisePrediction,
    Prediction,
    RectifiedFlowSchedule,
    SamplePrediction,
    Schedule,
    ShiftedSchedule,
    SigmoidSchedule,
    UniformTimes,
    VelocityPrediction,
)
from lit_generative.diffusion.schedules import per_image
from lit_generative.nn import UNet

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
EVERY_SCHEDULE = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
EVERY_PREDICTION = pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda p: type(p).__name__)
MakeTrainer = Callable[..., L.Trainer]


class Listener(UniformTimes):
    """Remembers what it is told of each training step."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Tensor, Tensor]] = []

    def observe(self, t: Tensor, loss: Tensor) -> None:
        self.told.append((t, loss))


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=640, batch_size=32)


def batch(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images, noise and times."""
    generator = torch.Generator().manual_seed(seed)
    x, noise = (torch.randn(n, *SHAPE, generator=generator) for _ in range(2))
    return MEAN + STD * x, noise, (torch.arange(n) + 0.5) / n


# ---------------------------------------------------------------- the values of the losses


@EVERY_SCHEDULE
@EVERY_PREDICTION
def test_the_exact_network_has_the_least_loss_there_is(schedule: Schedule, prediction: Prediction) -> None:
    model = DDPM(Exact(schedule, prediction), SHAPE, schedule, prediction)
    found = model.loss_by_noise(batch(64)[0])
    alpha, sigma = (level.double() for level in schedule(found["t"]))
    least = alpha**2 * STD**2 / (alpha**2 * STD**2 + sigma**2)  # Var[eps | x_t]
    torch.testing.assert_close(found["noise_mse"].double(), least, rtol=0.06, atol=0)  # 16384 pixels: 0.011 is one std
    assert (found["noise_mse"].diff() < 0).all()  # the more noise, the better it is known
    torch.testing.assert_close(found["log_snr"], schedule.log_snr(found["t"]))
    assert all(torch.equal(value, found[name]) for name, value in model.loss_by_noise(batch(64)[0]).items())


@EVERY_SCHEDULE
@EVERY_PREDICTION
def test_by_default_the_loss_is_that_of_the_target(schedule: Schedule, prediction: Prediction) -> None:
    network = Stub()
    model = DDPM(network, SHAPE, schedule, prediction)
    x, noise, t = batch()
    losses = model.losses_at(t, x, noise)
    alpha, sigma = (per_image(level, x) for level in schedule(t))
    s, sigma_data = sigma / alpha, 0.3  # EDM's noise, Karras et al. 2022 table 1
    c_skip, norm = sigma_data**2 / (s**2 + sigma_data**2), (s**2 + sigma_data**2).sqrt()
    targets: dict[type[Prediction], Tensor] = {
        NoisePrediction: noise,
        SamplePrediction: x,
        VelocityPrediction: alpha * noise - sigma * x,
        FlowVelocityPrediction: noise - x,
        EDMPrediction: (x - c_skip * (x + s * noise)) * norm / (s * sigma_data),
    }
    x_t = (x + s * noise) / norm if isinstance(prediction, EDMPrediction) else alpha * x + sigma * noise
    error = (targets[type(prediction)] - network.answer(x_t, t, None)).square().mean((1, 2, 3))
    torch.testing.assert_close(losses["loss"], error, rtol=2e-4, atol=1e-5)
    weighted = DDPM(network, SHAPE, schedule, prediction, weight=MinSNRWeight(3.0)).losses_at(t, x, noise)
    torch.testing.assert_close(weighted["noise_mse"], losses["noise_mse"])
    torch.testing.assert_close(weighted["loss"], (3 * s**2).clamp(max=1).flatten() * losses["noise_mse"])


def test_the_loss_is_that_of_ho_et_al() -> None:
    """Algorithm 1 at one step of their schedule, written out."""
    x, noise, _ = batch()
    step = torch.tensor([1, 10, 100, 500, 900, 1000])
    alpha_bar = (1 - torch.linspace(1e-4, 0.02, 1000).double()).cumprod(0)[step - 1].float().view(-1, 1, 1, 1)
    network = Stub()
    losses = DDPM(network, SHAPE).losses_at(step / 1000, x, noise)
    estimate = network.answer(alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise, step / 1000, None)
    torch.testing.assert_close(losses["loss"], (noise - estimate).square().mean((1, 2, 3)))


# ---------------------------------------------------------------- hooks


class AtOneTime(DDPM):
    def sample_time(self, n: int) -> tuple[Tensor, Tensor]:
        return torch.full((n,), 0.25), torch.full((n,), 3.0)


class Gray(DDPM):
    def denoise(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Estimate:
        return Estimate(torch.full_like(x_t, 0.25))


class Silent(DDPM):
    def predict(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return torch.zeros_like(x_t), None


def test_the_loss_weight_can_be_overridden() -> None:
    x, noise, t = batch()
    model = PerceptionWeighted(Stub(), SHAPE, prediction=VelocityPrediction())
    losses = model.losses_at(t, x, noise)
    _, sigma = model.schedule(t)
    torch.testing.assert_close(losses["loss"], sigma**2 * losses["noise_mse"])


def test_what_is_added_to_an_image_can_be_overridden() -> None:
    x, noise, t = batch(512)
    network = Stub(lambda x, t, y: torch.zeros_like(x))
    model = InputPerturbed(network, SHAPE)
    losses = model.losses_at(t, x, noise)
    torch.testing.assert_close(losses["loss"], noise.square().mean((1, 2, 3)))  # the target is as before
    alpha, sigma = (per_image(level, x) for level in model.schedule(t))
    more = (network.asked[0][0] - alpha * x - sigma * noise) / sigma
    assert more.std().item() == pytest.approx(0.1, rel=0.01)


def test_what_noise_is_can_be_overridden() -> None:
    x, noise, t = batch(512)
    losses = OffsetNoise(Stub(lambda x, t, y: noise), SHAPE).losses_at(t, x, noise)
    assert losses["loss"].mean().item() == pytest.approx(0.01, rel=0.2)  # the network does not see the offset


def test_the_times_can_be_overridden_and_their_importance_multiplies_the_loss() -> None:
    network, x = Stub(), batch()[0]
    losses = AtOneTime(network, SHAPE).losses(x)
    assert (network.asked[0][1] == 0.25).all()
    torch.testing.assert_close(losses["loss"], 3 * losses["noise_mse"])


def test_the_estimate_of_the_image_can_be_overridden() -> None:
    network = Stub()
    assert torch.equal(Gray(network, SHAPE).sample(2), torch.full((2, *SHAPE), 0.25))
    assert not network.asked


def test_what_the_network_is_asked_can_be_overridden() -> None:
    x, noise, t = batch()
    model = Silent(Stub(), SHAPE)
    torch.testing.assert_close(model.losses_at(t, x, noise)["loss"], noise.square().mean((1, 2, 3)))
    alpha = per_image(model.schedule(t)[0], x)
    torch.testing.assert_close(model.denoise(alpha * x, t).x0, x)  # no noise is seen in it
    assert not model.network.asked


# ---------------------------------------------------------------- times and labels in training


def test_times_are_told_the_losses_of_training_alone() -> None:
    times, network = Listener(), Stub()
    model = DDPM(network, SHAPE, times=times)
    losses = model.train().losses(batch()[0])
    model.eval().losses(batch()[0])
    model.loss_by_noise(batch()[0])
    ((t, loss),) = times.told
    assert torch.equal(t, network.asked[0][1])
    assert not loss.requires_grad
    torch.testing.assert_close(loss, losses["noise_mse"])


def test_times_are_told_the_loss_before_it_is_multiplied_by_the_importance() -> None:
    times = Listener()
    losses = AtOneTime(Stub(), SHAPE, times=times).losses(batch()[0])
    torch.testing.assert_close(3 * times.told[0][1], losses["loss"])


def test_times_are_told_of_each_step_of_a_run(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    times = Listener()
    model = DDPM(UNet((1, 28, 28), (8,), 1, (), groups=4, patch=4), (1, 28, 28), times=times)
    make_trainer(max_steps=3, limit_val_batches=2, val_check_interval=1).fit(model, datamodule=data)
    assert len(times.told) == 3


def test_labels_are_dropped_in_training_alone() -> None:
    network, y = Stub(), torch.arange(400) % 10
    x = torch.zeros(400, 1, 1, 1)
    model = DDPM(network, (1, 1, 1), num_classes=10, guidance=ClassifierFree(1.0, label_dropout=0.3))
    model.train().losses(x, y)
    model.eval().losses(x, y)
    model.loss_by_noise(x, y, num_levels=1)
    model.sample(400, y)
    (seen, *others) = (labels for _, _, labels in network.asked if labels is not None)
    assert (seen == 10).any()
    assert len(others) == 52  # validation, one noise level, and 50 steps of the sampler
    assert all(torch.equal(labels, y) for labels in others)


# ---------------------------------------------------------------- training


def train(make_trainer: MakeTrainer, data: ImageDataModule, steps: int, **options: Any) -> tuple[DDPM, Tensor]:
    """Train a small U-Net on real images; return the model and the loss of each step."""
    torch.manual_seed(0)
    network = UNet((1, 28, 28), (16,), 1, (), groups=4, patch=2)
    model = DDPM(network, (1, 28, 28), optimizer=partial(torch.optim.AdamW, lr=3e-3))
    losses: list[float] = []
    model.on_train_batch_end = lambda outputs, batch, i: losses.append(outputs["loss"].item())  # type: ignore[assignment]
    make_trainer(max_steps=steps, limit_val_batches=0, **options).fit(model, datamodule=data)
    return model, torch.tensor(losses)


def test_it_learns_real_images(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model, losses = train(make_trainer, data, 40)
    x = next(iter(data.loader("test", batch_size=64)))["image"]
    assert losses[0].item() == pytest.approx(1, abs=0.02)  # that of no noise at all, as the network starts at 0
    assert losses[-5:].mean() < 0.3
    assert model.loss_by_noise(x)["noise_mse"].mean() < 0.3


def test_bfloat16_learns_as_float32_does(make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    (_, full), (_, half) = (train(make_trainer, data, 20, precision=p) for p in ("32-true", "bf16-mixed"))
    assert full[-1] < 0.5 * full[0]
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, rtol=0.01, atol=0)


# ---------------------------------------------------------------- errors


def test_guidance_by_the_class_of_a_model_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"guidance=ClassifierFree: the model has no labels; set num_classes"):
        DDPM(Stub(), SHAPE, guidance=ClassifierFree(2.0))


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image_shape=\(1, 16, 16\), but the images have \(1, 8, 8\)"):
        DDPM(Stub(), (1, 16, 16)).losses(torch.zeros(2, 1, 8, 8))


def test_no_noise_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="num_levels=0: it must be at least 1"):
        DDPM(Stub(), SHAPE).loss_by_noise(torch.zeros(2, *SHAPE), num_levels=0)
