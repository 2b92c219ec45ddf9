"""One contract for every DDPM: each network with each prediction; schedules, weights, times and samplers in turn."""

from collections.abc import Callable
from itertools import cycle, product
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative import DDPM, Described, GenerativeModule, ImageDataModule
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    ClassifierFree,
    CosineSchedule,
    DiscreteBoundWeight,
    DPMSolverPP2M,
    DynamicThresholding,
    EDMPrediction,
    EDMSchedule,
    EDMWeight,
    EulerSampler,
    FlowVelocityPrediction,
    GridTimes,
    HeunSampler,
    LearnedVariance,
    LinearBetaSchedule,
    LogitNormalTimes,
    LogNormalTimes,
    LogSNRSpacing,
    LossAwareTimes,
    MinSNRWeight,
    NoisePrediction,
    RectifiedFlowSchedule,
    SamplePrediction,
    ShiftedSchedule,
    SigmoidSchedule,
    SimpleWeight,
    SoftMinSNRWeight,
    StaticThresholding,
    StratifiedTimes,
    TrailingSpacing,
    VariationalBoundWeight,
    VelocityPrediction,
)
from lit_generative.nn import DiT, UNet

MakeTrainer = Callable[..., L.Trainer]


class UsersNetwork(Described, nn.Module):
    """A network of a user's own."""

    def __init__(self, image_shape: tuple[int, int, int], width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(image_shape[0] + 1, width, 3, padding=1)
        self.last = nn.Conv2d(width, image_shape[0], 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        time = t.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        return self.last(F.silu(self.first(torch.cat([x, time], 1))))


class UsersSwitch(UsersNetwork):
    """One that takes labels."""

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__(image_shape)
        self.biases = nn.Embedding(num_classes + 1, image_shape[0])

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        return super().forward(x, t) + self.biases(y)[..., None, None]


SMALL = {"widths": (8, 16), "blocks": 1, "groups": 4}
GRAY, COLOUR = (1, 28, 28), (3, 20, 13)
# shape, number of classes, whether the variance is learned, and the network
NETWORKS: dict[str, tuple[tuple[int, int, int], int | None, bool, Callable[[], nn.Module]]] = {
    "unet": (GRAY, None, False, lambda: UNet(GRAY, patch=2, dropout=0.1, attention=(), **SMALL)),
    "unet-colour": (COLOUR, 10, False, lambda: UNet(COLOUR, num_classes=10, **SMALL)),
    "unet-variance": (COLOUR, 10, True, lambda: UNet(COLOUR, num_classes=10, output_multiple=2, patch=2, **SMALL)),
    "dit": (GRAY, 10, False, lambda: DiT(GRAY, 7, 16, 2, 2, num_classes=10)),
    "dit-variance": (GRAY, None, True, lambda: DiT(GRAY, 7, 16, 2, 2, output_multiple=2)),
    "users": (GRAY, None, False, lambda: UsersNetwork(GRAY)),
    "users-switch": (COLOUR, 10, False, lambda: UsersSwitch(COLOUR, 10)),
}
PREDICTIONS = (NoisePrediction, SamplePrediction, VelocityPrediction, FlowVelocityPrediction, EDMPrediction)
CASES = list(product(NETWORKS, PREDICTIONS))
# of lengths without common divisors, so that what comes together differs from round to round
SCHEDULES = cycle(
    [
        LinearBetaSchedule,
        CosineSchedule,
        EDMSchedule,
        RectifiedFlowSchedule,
        SigmoidSchedule,
        lambda: ShiftedSchedule(CosineSchedule(), 128),
    ]
)
WEIGHTS = cycle(
    [
        *(
            lambda s: None,
            lambda s: SimpleWeight(),
            lambda s: MinSNRWeight(),
            lambda s: SoftMinSNRWeight(),
            lambda s: EDMWeight(),
        ),
        *(VariationalBoundWeight, DiscreteBoundWeight),
    ]
)
TIMES = cycle(
    [
        *(
            lambda s: None,
            lambda s: StratifiedTimes(),
            lambda s: LogitNormalTimes(),
            LogNormalTimes,
            lambda s: GridTimes(),
        ),
        *(lambda s: LossAwareTimes(4, 1), lambda s: LossAwareTimes(4, 1), lambda s: StratifiedTimes()),
    ]
)
SAMPLERS = cycle(
    [
        *(
            lambda: DDIM(3),
            lambda: DDIM(4, eta=0.5),
            lambda: AncestralSampler(4, TrailingSpacing(), StaticThresholding()),
            lambda: HeunSampler(3),
        ),
        *(
            lambda: DPMSolverPP2M(4, LogSNRSpacing(), DynamicThresholding()),
            lambda: EulerSampler(4, thresholding=StaticThresholding()),
        ),
        *(
            lambda: DPMSolverPP2M(4, eta=1.0),
            lambda: DDIM(4, LogSNRSpacing(), StaticThresholding()),
            lambda: AncestralSampler(3, v=1.0),
        ),
    ]
)
PARTS = {case: (next(SCHEDULES), next(WEIGHTS), next(TIMES), next(SAMPLERS)) for case in CASES}


def build(network: str, prediction: type) -> DDPM:
    """Make a DDPM whose weights are all away from where they start, some of which is zero."""
    torch.manual_seed(0)
    shape, num_classes, learns_variance, make = NETWORKS[network]
    make_schedule, make_weight, make_times, make_sampler = PARTS[network, prediction]
    schedule = make_schedule()
    options: dict[str, Any] = {"weight": make_weight(schedule), "times": make_times(schedule)}
    options |= {"sampler": make_sampler(), "num_classes": num_classes}
    if learns_variance:
        options |= {
            "variance": LearnedVariance(num_steps=100),
            "sampler": AncestralSampler(4, thresholding=StaticThresholding(), v=None),
        }
    if num_classes is not None:
        options |= {"guidance": ClassifierFree(2.0, (0.2, 0.9), label_dropout=0.3)}
    model = DDPM(make(), shape, schedule, prediction(), **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def clothes() -> dict[str, Tensor]:
    return next(iter(ImageDataModule().loader("test", batch_size=6)))


@pytest.fixture(params=CASES, ids=[f"{network}-{prediction.__name__}" for network, prediction in CASES])
def case(request: pytest.FixtureRequest, clothes: dict[str, Tensor]) -> tuple[DDPM, Tensor, Tensor | None]:
    """A model, six real images of its shape on the 256 levels, and labels if it takes them."""
    model = build(*request.param)
    x = F.interpolate(clothes["image"], model.image_shape[1:], mode="bilinear", antialias=True).clamp(-1, 1)
    x = ((x.expand(-1, model.image_shape[0], -1, -1) + 1) * 127.5).round() / 127.5 - 1
    return model, x, None if model.num_classes is None else clothes["label"]


def source(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_losses_are_per_image_and_reach_every_weight(case: tuple[DDPM, Tensor, Tensor | None]) -> None:
    model, x, y = case
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    for _ in range(2):
        optimizer.zero_grad()
        losses = model.losses(x, y)
        assert losses.keys() == {"loss", "noise_mse"} | ({"bound_term"} if model.variance else set())
        assert all(value.shape == (6,) and torch.isfinite(value).all() for value in losses.values())
        assert (losses["loss"] > 0).all()
        losses["loss"].mean().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.any(), name
        optimizer.step()
    assert torch.isfinite(model.loss_by_noise(x, y, 5)["noise_mse"]).all()


def test_the_losses_of_an_image_do_not_depend_on_the_others(case: tuple[DDPM, Tensor, Tensor | None]) -> None:
    model, x, y = case
    model.eval()
    noise, t = torch.randn_like(x), torch.rand(6)
    together = model.losses_at(t, x, noise, y)
    alone = model.losses_at(t[2:3], x[2:3], noise[2:3], None if y is None else y[2:3])
    for name, value in alone.items():
        torch.testing.assert_close(value, together[name][2:3], rtol=1e-3, atol=1e-5)


def test_the_estimate_of_an_image_does_not_depend_on_the_others(case: tuple[DDPM, Tensor, Tensor | None]) -> None:
    model, x, y = case
    model.eval()
    t = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.85, 1.0])
    together = model.denoiser(y)(x, t)
    assert (together.v is None) == (model.variance is None)
    alone = model.denoiser(None if y is None else y[2:3])(x[2:3], t[2:3])
    for a, b in zip(alone, together, strict=True):
        if a is not None and b is not None:
            torch.testing.assert_close(a, b[2:3], rtol=1e-3, atol=1e-4)


def test_samples_are_images_and_a_checkpoint_gives_back_the_model(
    case: tuple[DDPM, Tensor, Tensor | None], make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    model, x, y = case
    model.losses(x, y)  # which a LossAwareTimes remembers
    images = model.sample(6, y, generator=source())
    assert images.shape == x.shape
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert images.abs().max() <= 1
    assert images.std() > 0
    assert not torch.equal(images, model.sample(6, y, generator=source(2)))
    trainer = make_trainer()
    model.trainer = trainer
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = GenerativeModule.load_from_checkpoint(tmp_path / "model.ckpt")
    assert type(loaded) is DDPM
    assert torch.equal(loaded.sample(6, y, generator=source()), images)
    assert loaded.sampling == model.sampling
    torch.manual_seed(5)
    losses = model.losses(x, y)
    torch.manual_seed(5)
    again = loaded.train().losses(x, y)
    assert all(torch.equal(value, losses[name]) for name, value in again.items())


def test_a_network_without_the_channels_for_a_variance_is_refused() -> None:
    model = DDPM(UsersNetwork(GRAY), GRAY, variance=LearnedVariance())
    with pytest.raises(ValueError, match="output with 1 channels: a learned variance needs twice the image's"):
        model.losses(torch.zeros(2, *GRAY))


def test_a_variance_that_nobody_learned_is_refused() -> None:
    with pytest.raises(ValueError, match=r"v=None: .*take v=0 or v=1"):
        DDPM(UsersNetwork(GRAY), GRAY, sampler=AncestralSampler(3, v=None)).sample(1)


def test_the_bound_teaches_the_variance_and_not_the_mean() -> None:
    model = build("unet-variance", NoisePrediction)
    assert isinstance(model.network, UNet)
    x, t = torch.rand(4, *COLOUR) * 2 - 1, torch.tensor([0.01, 0.2, 0.5, 1.0])
    losses = model.losses_at(t, x, torch.randn_like(x), torch.zeros(4, dtype=torch.long))
    head = model.network.head.bias
    (of_bound,) = torch.autograd.grad(losses["bound_term"].sum(), head, retain_graph=True)
    (of_mse,) = torch.autograd.grad(losses["noise_mse"].sum(), head, retain_graph=True)
    mean, variance = slice(None, len(head) // 2), slice(len(head) // 2, None)
    assert not of_bound[mean].any()
    assert of_bound[variance].all()
    assert of_mse[mean].all()
    assert not of_mse[variance].any()
    bits = losses["bound_term"] / (x[0].numel() * torch.tensor(2.0).log())  # a dimension
    simple = model.loss_weight(t) * losses["noise_mse"]
    torch.testing.assert_close(losses["loss"], simple + 1e-3 * 100 * bits)
