import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_generative import VAE, Evaluator, ImageDataModule
from lit_generative.callbacks import Evaluate, LastCheckpoint, TrainingClock
from lit_generative.gan import GAN

MakeTrainer = Callable[..., L.Trainer]


class Time(L.Callback):
    """Time that passes in known portions: 3 s a training step, 100 s a validation, 1000 s at the end."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += 3

    def on_validation_batch_start(self, *_: Any) -> None:
        self.now += 100

    def on_train_end(self, *_: Any) -> None:
        self.now += 1000


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    for module in ("clock", "last"):
        monkeypatch.setattr(f"lit_generative.callbacks.{module}.monotonic", time)
    return time


@pytest.fixture(scope="module")
def data() -> ImageDataModule:
    return ImageDataModule(subset=40, batch_size=20)


def records(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "evaluation.json").read_text())


def test_only_training_counts(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, time: Time, tmp_path: Path
) -> None:
    evaluate = Evaluate(Evaluator(num_samples=30, num_real=50), every_n_epochs=1, split_at_end="test")
    trainer = make_trainer(callbacks=[evaluate, time, clock := TrainingClock()], max_epochs=3, limit_val_batches=2)
    trainer.fit(make_vae(), datamodule=data)
    assert clock.seconds == 3 * 2 * 3
    assert clock.device_seconds == 3 * 2 * 3 * torch.get_num_threads()
    # three on validation images, and one on test images at the end, which has the same training behind it as the third
    assert [record["training_minutes"] for record in records(tmp_path)] == [6 / 60, 12 / 60, 18 / 60, 18 / 60]
    assert records(tmp_path)[0]["device_minutes"] == 6 / 60 * torch.get_num_threads()


def test_a_resumed_run_goes_on_counting(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, time: Time, tmp_path: Path
) -> None:
    first = make_trainer(callbacks=[time, TrainingClock()], max_steps=3, limit_val_batches=0)
    first.fit(make_vae(), datamodule=data)
    first.save_checkpoint(tmp_path / "half.ckpt")
    time.now += 5000
    resumed = make_trainer(callbacks=[time, clock := TrainingClock()], max_steps=5, limit_val_batches=0)
    resumed.fit(make_vae(), datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert clock.seconds == 5 * 3


def test_the_time_before_a_clock_is_not_known(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, data: ImageDataModule, time: Time, tmp_path: Path
) -> None:
    first = make_trainer(max_steps=3, limit_val_batches=0)
    first.fit(make_vae(), datamodule=data)
    first.save_checkpoint(tmp_path / "half.ckpt")
    evaluate = Evaluate(Evaluator(num_samples=30, num_real=50))
    resumed = make_trainer(callbacks=[evaluate, time, clock := TrainingClock()], max_steps=5, limit_val_batches=0)
    resumed.fit(make_vae(), datamodule=data, ckpt_path=tmp_path / "half.ckpt", weights_only=True)
    assert clock.seconds is None
    assert "training_minutes" not in records(tmp_path)[-1]


@pytest.mark.parametrize("family", ["vae", "gan"])  # Lightning's own interval does nothing under manual optimisation
def test_the_last_state_is_saved_every_minute(
    family: str,
    make_vae: Callable[..., VAE],
    make_gan: Callable[..., GAN],
    make_trainer: MakeTrainer,
    time: Time,
    tmp_path: Path,
) -> None:
    model = make_vae() if family == "vae" else make_gan()
    last = LastCheckpoint()
    last.dirpath = str(tmp_path)
    trainer = make_trainer(callbacks=[time, last], max_steps=39, limit_val_batches=0, enable_checkpointing=True)
    saved: list[int] = []
    trainer.save_checkpoint = lambda path, *_: saved.append(trainer.global_step)  # type: ignore[method-assign]
    trainer.fit(model, datamodule=ImageDataModule(subset=400, batch_size=10))
    # 60 s are 20 steps, and every tenth step is looked at; the end of the epoch, which the 39 steps cut short, too
    assert saved == [20, 39]


def test_half_a_gradient_is_not_saved(make_vae: Callable[..., VAE], make_trainer: MakeTrainer, time: Time) -> None:
    last = LastCheckpoint(minutes=0.01)
    trainer = make_trainer(
        callbacks=[time, last],
        max_steps=20,
        limit_val_batches=0,
        enable_checkpointing=True,
        accumulate_grad_batches=3,
    )
    saved: list[tuple[int, int]] = []
    trainer.save_checkpoint = lambda path, *_: saved.append((trainer.global_step, time.now))  # type: ignore[method-assign]
    trainer.fit(make_vae(), datamodule=ImageDataModule(subset=900, batch_size=10))
    assert saved == [(10, 50 + 3 * 30), (20, 50 + 3 * 60), (20, 50 + 3 * 60)]


def test_minutes_between_checkpoints_are_positive() -> None:
    with pytest.raises(ValueError, match="minutes=0: it must be positive; it is the time between two checkpoints"):
        LastCheckpoint(0)
