"""A run that was stopped and resumed ends in exactly the state of one that was not."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from lit_generative import VAE, ImageDataModule
from lit_generative.callbacks import EMA, SampleGrid

MakeTrainer = Callable[..., L.Trainer]
EPOCHS, BATCHES = 3, 4
DECIDING = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "lit_generative", "global_step", "epoch")


def run(
    make_vae: Callable[..., VAE],
    trainer: L.Trainer,
    ckpt_path: Path | None = None,
    scheduler: Any = None,
    name: str = "end.ckpt",
) -> dict[str, Any]:
    """Train a small VAE to the end and return the checkpoint of that state, as a file holds it."""
    model = make_vae()
    model.make_lr_scheduler = scheduler
    torch.manual_seed(17 if ckpt_path is None else 99)  # a new process has another random state
    data = ImageDataModule(subset=BATCHES * 25, batch_size=25, random_flip=True)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    path = Path(trainer.default_root_dir) / name
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


def assert_identical(a: Any, b: Any, where: str) -> None:
    """Compare nested plain data and tensors, bit by bit."""
    assert type(a) is type(b), where
    if isinstance(a, Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_identical(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_equals_unbroken_bit_for_bit(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, tmp_path: Path, accumulate: int
) -> None:
    options = {"max_epochs": EPOCHS, "limit_val_batches": 1, "accumulate_grad_batches": accumulate}
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", save_top_k=-1, every_n_train_steps=1)
    trainer = make_trainer(callbacks=[EMA(0.9), SampleGrid(4), keep], enable_checkpointing=True, **options)
    # a schedule that needs the length of the training asks for the loader before its place is restored
    scheduler = functools.partial(OneCycleLR, max_lr=5e-3)
    unbroken = run(make_vae, trainer, scheduler=scheduler)
    unbroken["callbacks"].pop(keep.state_key)
    for stop in {1: (4, 7), 2: (2, 3)}[accumulate]:  # at the end of the first epoch, and in the middle of the second
        trainer = make_trainer(callbacks=[EMA(0.9), SampleGrid(4)], **options)
        resumed = run(make_vae, trainer, tmp_path / "kept" / f"step={stop}.ckpt", scheduler)
        assert resumed["global_step"] == EPOCHS * BATCHES // accumulate
        assert resumed["lit_generative"]["state"]["images_seen"] == EPOCHS * BATCHES * 25
        for part in DECIDING:
            assert_identical(resumed[part], unbroken[part], f"resumed at step {stop}: {part}")


def test_two_halves_equal_the_whole(make_vae: Callable[..., VAE], make_trainer: MakeTrainer, tmp_path: Path) -> None:
    def steps(n: int) -> L.Trainer:
        return make_trainer(max_steps=n, limit_val_batches=1, callbacks=[EMA(0.9)])

    whole = run(make_vae, steps(10))
    first = run(make_vae, steps(5), name="half.ckpt")  # in the middle of the second epoch
    assert first["global_step"] == 5
    resumed = run(make_vae, steps(10), tmp_path / "half.ckpt")
    for part in DECIDING[:-1]:  # Lightning counts an epoch that max_steps cut short as a whole one
        assert_identical(resumed[part], whole[part], part)
