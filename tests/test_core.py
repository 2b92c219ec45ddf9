import functools
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from noiseless import NoiselessVAE
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

from lit_generative import VAE, GenerativeModule, ImageDataModule
from lit_generative.sampling import sampling_mode

MakeVAE = Callable[..., VAE]
MakeTrainer = Callable[..., L.Trainer]


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    """A few hundred images of the embedded set, decoded once for all tests here."""
    return ImageDataModule(subset=500, batch_size=50)


class DivergingVAE(VAE):
    def objective(self, nll: Tensor, kl: Tensor) -> Tensor:
        return nll * float("nan")


def test_images_are_counted_not_steps(make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model = make_vae()
    trainer = make_trainer(max_epochs=2, limit_train_batches=7, limit_val_batches=0, accumulate_grad_batches=3)
    trainer.fit(model, datamodule=data)
    assert model.images_seen == 2 * 7 * 50
    assert trainer.global_step == 2 * 3  # the third step of an epoch has a single batch


def test_the_logged_loss_is_the_mean_over_images(make_vae: MakeVAE, make_trainer: MakeTrainer) -> None:
    data = ImageDataModule(subset=300, batch_size=300)  # the last of the 1000 validation images are fewer
    model = make_vae(NoiselessVAE)
    model.make_optimizer = functools.partial(torch.optim.SGD, lr=0.0)
    seen: list[Tensor] = []
    model.on_train_batch_end = lambda outputs, batch, batch_idx: seen.append(batch["image"])  # type: ignore[assignment]
    trainer = make_trainer(max_steps=1, log_every_n_steps=1)
    trainer.fit(model, datamodule=data)
    with torch.no_grad():
        train = model.losses(seen[0])
        val = [model.losses(batch["image"])["loss"] for batch in data.loader("val")]
    for name, value in train.items():
        torch.testing.assert_close(trainer.callback_metrics[f"train/{name}"], value.mean())
    assert len(val[-1]) != len(val[0])
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], torch.cat(val).mean())
    assert trainer.callback_metrics["images_seen"] == 300


def test_an_optimizer_is_a_class_or_a_partial(
    make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    for optimizer in (torch.optim.Adamax, functools.partial(torch.optim.Adamax, lr=2e-3)):
        model = make_vae()
        model.make_optimizer = optimizer
        trainer = make_trainer(max_steps=1, limit_val_batches=0)
        trainer.fit(model, datamodule=data)
        assert type(trainer.optimizers[0]) is torch.optim.Adamax
        assert sum(p.numel() for g in trainer.optimizers[0].param_groups for p in g["params"]) == sum(
            p.numel() for p in model.parameters()
        )


def fit_with(scheduler: Any, make_vae: MakeVAE, trainer: L.Trainer, data: ImageDataModule) -> Any:
    """Train with a learning rate of 1e-3 and return the schedule that was used."""
    model = make_vae()
    model.make_lr_scheduler = scheduler
    trainer.fit(model, datamodule=data)
    return trainer.lr_scheduler_configs[0].scheduler


def test_a_schedule_advances_every_step(make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    trainer = make_trainer(max_steps=3, limit_val_batches=0)
    scheduler = fit_with(functools.partial(StepLR, step_size=1, gamma=0.5), make_vae, trainer, data)
    assert scheduler.get_last_lr() == pytest.approx([1e-3 / 8])


@pytest.mark.parametrize(("given", "expected"), [({}, 2 * 4), ({"total_steps": 50}, 50)])
def test_a_schedule_learns_the_length_of_the_training(
    make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule, given: dict[str, int], expected: int
) -> None:
    trainer = make_trainer(max_epochs=2, limit_val_batches=0, limit_train_batches=8, accumulate_grad_batches=2)
    scheduler = fit_with(functools.partial(OneCycleLR, max_lr=1e-2, **given), make_vae, trainer, data)
    assert scheduler.total_steps == expected
    assert scheduler.last_epoch == trainer.global_step == 8


def test_a_schedule_of_an_endless_training_is_refused(
    make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    with pytest.raises(ValueError, match=r"total_steps: give it, or trainer\.max_epochs or trainer\.max_steps"):
        fit_with(functools.partial(OneCycleLR, max_lr=1e-2), make_vae, make_trainer(max_epochs=-1), data)


def test_a_plateau_is_judged_by_the_validation_loss(
    make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    never_better = functools.partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=1e9, threshold_mode="abs")
    trainer = make_trainer(max_epochs=3, limit_train_batches=2, limit_val_batches=1)
    scheduler = fit_with(never_better, make_vae, trainer, data)
    assert scheduler.get_last_lr() == pytest.approx([1e-3 / 4])


def test_a_loss_that_is_not_finite_stops_the_run(
    make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    with pytest.raises(FloatingPointError, match=r"not finite at step 1 \(loss nan, nelbo .*A lower learning rate"):
        make_trainer(log_every_n_steps=2, max_steps=4).fit(make_vae(DivergingVAE), datamodule=data)


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "num_classes=7, but the data have 10 classes"), ({"label_column": None}, "but the data have no classes")],
)
def test_classes_must_be_those_of_the_data(
    make_vae: MakeVAE, make_trainer: MakeTrainer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(max_steps=1).fit(make_vae(num_classes=7), datamodule=ImageDataModule(subset=100, **options))


def test_an_unconditional_model_ignores_the_labels_of_the_data(
    make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    model = make_vae()
    make_trainer(max_steps=1, limit_val_batches=1).fit(model, datamodule=data)
    assert "label" in next(iter(data.loader("val")))
    assert model.images_seen == 50


def test_prediction_draws_as_many_images_as_the_batch_has(make_vae: MakeVAE, make_trainer: MakeTrainer) -> None:
    data = ImageDataModule(subset=100)
    drawn = make_trainer().predict(make_vae(num_classes=10), data.loader("test", batch_size=7, limit=16))
    assert [len(images) for images in drawn] == [7, 7, 2]


def test_each_step_draws_its_own_noise(make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model, noise = make_vae(), []
    model.on_before_backward = lambda loss: noise.append(torch.rand(()).item())  # type: ignore[assignment]
    make_trainer(max_steps=5, limit_val_batches=0).fit(model, datamodule=data)
    assert len(set(noise)) == 5


class NoisePrediction(GenerativeModule):
    """Draws nothing but noise, and tells how it was run."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout()
        self.frozen = nn.Dropout().eval()
        self.product: Tensor | None = None

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        self.product = torch.ones(2, 2) @ torch.ones(2, 2)
        self.was_training = self.dropout.training or torch.is_grad_enabled()
        return 5 * torch.randn(n, 1, 4, 4)


def test_sampling_is_evaluation_and_leaves_no_trace() -> None:
    model = NoisePrediction()
    model.frozen.eval()
    drawn = model.sample(3, generator=torch.Generator().manual_seed(0))
    assert not model.was_training
    assert model.dropout.training
    assert not model.frozen.training  # what was frozen stays so
    assert drawn.abs().max() == 1  # clamped to [-1, 1]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)])
def test_sampling_has_the_precision_of_the_training(precision: str, dtype: torch.dtype) -> None:
    model = NoisePrediction()
    model.precision = precision
    assert model.sample(1).dtype == torch.float32
    assert model.product is not None
    assert model.product.dtype == dtype
    assert model.sampling["precision"] == precision


def test_training_notes_its_precision(make_vae: MakeVAE, make_trainer: MakeTrainer, data: ImageDataModule) -> None:
    model = make_vae()
    make_trainer(max_steps=1, limit_val_batches=0, precision="bf16-mixed").fit(model, datamodule=data)
    assert model.precision == "bf16-mixed"


def test_a_model_that_implements_nothing_says_what_is_missing() -> None:
    with pytest.raises(TypeError, match=r"GenerativeModule does not implement losses\(x, y\)"):
        GenerativeModule().losses(torch.zeros(1))
    with pytest.raises(TypeError, match=r"GenerativeModule does not implement sample\(n, y"):
        GenerativeModule().sample(1)
