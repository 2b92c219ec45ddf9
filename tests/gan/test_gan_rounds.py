"""A round is one step for everything that counts steps, and what is broken ends the run at once."""

import csv
import functools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, XLAStrategy
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR, ReduceLROnPlateau

from lit_generative import ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.gan import GAN, R1
from lit_generative.manual_optimization import check_trainer

MakeGAN = Callable[..., GAN]
MakeTrainer = Callable[..., L.Trainer]


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=200, batch_size=20)


def saving(folder: Path, every: int) -> ModelCheckpoint:
    return ModelCheckpoint(folder / "kept", "{step}", save_top_k=-1, every_n_train_steps=every)


def steps_saved(folder: Path) -> set[int]:
    return {int(path.stem.removeprefix("step=")) for path in (folder / "kept").iterdir()}


@pytest.mark.parametrize("discriminator_steps", [1, 3])
def test_a_round_is_one_step(
    make_gan: MakeGAN,
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    discriminator_steps: int,
) -> None:
    model = make_gan(discriminator_steps=discriminator_steps, penalties=[R1(1.0)])
    rounds: list[int] = []
    model.on_train_batch_end = lambda *_: rounds.append(model.global_step)  # type: ignore[assignment]
    options = {"logger": CSVLogger(tmp_path), "log_every_n_steps": 2, "enable_checkpointing": True}
    trainer = make_trainer(max_steps=12, limit_val_batches=0, callbacks=[saving(tmp_path, 4)], **options)
    trainer.fit(model, datamodule=data)
    assert rounds == list(range(1, 13))
    assert model.images_seen == 12 * 20
    assert steps_saved(tmp_path) == {4, 8, 12}
    assert not [warning for warning in recwarn if "manual optimization" in str(warning.message)]
    with (Path(trainer.logger.log_dir) / "metrics.csv").open() as file:  # type: ignore[union-attr, arg-type]
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 3, 5, 7, 9, 11]
    assert [float(row["images_seen"]) for row in rows] == [40.0 * k for k in range(1, 7)]
    for name in ("discriminator_loss", "generator_loss", "penalty"):
        logged = [row[f"train/{name}"] for row in rows]
        # the generator's loss is the latest, if this round has none
        assert [value != "" for value in logged] == [name != "generator_loss" or discriminator_steps == 1] + [True] * 5
        assert all(math.isfinite(float(value)) for value in logged if value)


@pytest.mark.parametrize("discriminator_steps", [1, 3])
def test_each_schedule_advances_every_round(
    make_gan: MakeGAN,
    make_trainer: MakeTrainer,
    data: ImageDataModule,
    recwarn: pytest.WarningsRecorder,
    discriminator_steps: int,
) -> None:
    model = make_gan(
        discriminator_steps=discriminator_steps,
        discriminator_optimizer=functools.partial(torch.optim.SGD, lr=1.0),
        discriminator_lr_scheduler=functools.partial(ExponentialLR, gamma=0.5),
        generator_lr_scheduler=functools.partial(OneCycleLR, max_lr=1e-3),
    )
    trainer = make_trainer(max_epochs=2, limit_train_batches=4, limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    discriminators, generators = (config.scheduler for config in trainer.lr_scheduler_configs)
    assert discriminators.get_last_lr() == [0.5**8]
    assert (generators.total_steps, generators.last_epoch) == (8, 8)  # type: ignore[attr-defined]
    assert not [warning for warning in recwarn if "lr_scheduler" in str(warning.message)]


def test_one_network_may_have_a_schedule_and_the_other_none(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    trainer = make_trainer(max_steps=2, limit_val_batches=0)
    trainer.fit(make_gan(generator_lr_scheduler=functools.partial(ExponentialLR, gamma=0.5)), datamodule=data)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([2e-4, 2e-4 / 4])


def test_a_schedule_that_watches_a_metric_is_refused(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    with pytest.raises(ValueError, match="watches a metric cannot follow a game"):
        make_trainer(max_steps=1).fit(make_gan(generator_lr_scheduler=ReduceLROnPlateau), datamodule=data)


@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_the_generator_is_averaged_once_a_round(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, discriminator_steps: int
) -> None:
    model = make_gan(discriminator_steps=discriminator_steps)
    average = [p.detach().clone() for p in model.generator.parameters()]

    def follow(*_: Any) -> None:
        for mean, p in zip(average, model.generator.parameters(), strict=True):
            mean.copy_(0.9 * mean + 0.1 * p.detach())

    model.on_train_batch_end = follow  # type: ignore[assignment]
    trainer = make_trainer(max_steps=6, limit_val_batches=0, callbacks=[EMA(0.9, warmup=False, part="generator")])
    trainer.fit(model, datamodule=data)
    torch.testing.assert_close(list(model.generator.parameters()), average, rtol=1e-5, atol=1e-7)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
@pytest.mark.parametrize(
    "name", ["latent_dim", "discriminator_steps", "micro_batches", "generator_clip", "discriminator_clip"]
)
def test_numbers_must_be_positive(make_gan: MakeGAN, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}: it must be (at least 1|positive)"):
        make_gan(**{name: value})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"gradient_clip_val": 1.0},
            "trainer.gradient_clip_val=1.0: use model.generator_clip and model",
        ),
        (
            {"gradient_clip_val": 0.5},
            "trainer.gradient_clip_val=0.5: use model.generator_clip and model",
        ),
        ({"accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches=2: use model.micro_batches"),
    ],
)
def test_the_trainers_own_options_are_refused(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(max_steps=1, **option).fit(make_gan(), datamodule=data)


@pytest.mark.parametrize("strategy", [FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy, XLAStrategy])
def test_strategies_that_shard_are_refused(strategy: type) -> None:
    trainer = SimpleNamespace(strategy=strategy.__new__(strategy))  # some need what is not installed
    with pytest.raises(ValueError, match=f"trainer.strategy={strategy.__name__}: .* with ddp only"):
        check_trainer(trainer, {})  # type: ignore[arg-type]


# ---------------------------------------------------------------- what is not finite


class Broken(GAN):
    """Has a loss, or lets in a gradient, that is not finite in the fourth round."""

    where = ""

    def discriminator_loss(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        return super().discriminator_loss(real, fake, y) * self.factor("discriminator loss")

    def generator_loss(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        return super().generator_loss(real, fake, y) * self.factor("generator loss")

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        p = optimizer.param_groups[0]["params"][0]
        p.grad *= self.factor("gradient") if optimizer is self.trainer.optimizers[1] else 1.0

    def factor(self, where: str) -> float:
        return math.nan if self.global_step == 3 and where == self.where else 1.0


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("discriminator loss", r"the discriminator loss is not finite at step 3 \(discriminator_loss nan\)"),
        ("generator loss", r"the generator loss is not finite at step 3 \(generator_loss nan\)"),
        ("gradient", r"generator\.\S+ is not finite at step 4"),  # found before it would be saved
    ],
)
def test_what_is_not_finite_ends_the_run_and_is_not_saved(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule, tmp_path: Path, where: str, message: str
) -> None:
    model = make_gan(Broken)
    model.where = where  # type: ignore[assignment]
    options = {"log_every_n_steps": 1000, "enable_checkpointing": True, "callbacks": [saving(tmp_path, 1)]}
    trainer = make_trainer(max_steps=8, limit_val_batches=0, **options)
    with pytest.raises(FloatingPointError, match=rf"{message}.*last checkpoint is .*step=3\.ckpt"):
        trainer.fit(model, datamodule=data)
    assert steps_saved(tmp_path) == {1, 2, 3}
    if where != "gradient":
        assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_penalty_that_is_not_finite_ends_the_run(
    make_gan: MakeGAN, make_trainer: MakeTrainer, data: ImageDataModule
) -> None:
    penalty = R1(1.0)
    penalty.weight = math.inf
    model = make_gan(penalties=[penalty])
    with pytest.raises(FloatingPointError, match=r"the discriminator loss is not finite at step 0 .*A lower learning"):
        make_trainer(max_steps=1).fit(model, datamodule=data)
