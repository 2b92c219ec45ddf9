"""Training in one go and in pieces, and comparing the states that both end in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lit_generative import GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA, SampleGrid

EPOCHS, BATCHES = 3, 4
DECIDING = ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "lit_generative", "global_step", "epoch")


def run(
    model: GenerativeModule, trainer: L.Trainer, ckpt_path: Path | None = None, name: str = "end.ckpt"
) -> dict[str, Any]:
    """Train a model to the end and return the checkpoint of that state, as a file holds it."""
    torch.manual_seed(17 if ckpt_path is None else 99)  # a new process has another random state
    data = ImageDataModule(subset=BATCHES * 25, batch_size=25, random_flip=True)
    trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    path = Path(trainer.default_root_dir) / name
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


def assert_resumes(
    make_model: Callable[[], GenerativeModule],
    make_trainer: Callable[..., L.Trainer],
    stops: tuple[int, ...],
    part: str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Check that a run resumed after each of some steps ends as the unbroken one does; return how that ended."""

    def make(**more: Any) -> L.Trainer:
        callbacks = [EMA(0.9, part=part), SampleGrid(4), *more.pop("callbacks", ())]
        return make_trainer(max_epochs=EPOCHS, limit_val_batches=1, callbacks=callbacks, **options, **more)

    keep = ModelCheckpoint(None, "{step}", save_top_k=-1, every_n_train_steps=1)
    unbroken = run(make_model(), make(callbacks=[keep], enable_checkpointing=True))
    unbroken["callbacks"].pop(keep.state_key)
    assert keep.dirpath is not None
    for stop in stops:
        resumed = run(make_model(), make(), Path(keep.dirpath) / f"step={stop}.ckpt")
        for part_of_state in DECIDING:
            assert_identical(
                resumed[part_of_state], unbroken[part_of_state], f"resumed at step {stop}: {part_of_state}"
            )
    return unbroken


def assert_halves(make_model: Callable[[], GenerativeModule], make_trainer: Callable[..., L.Trainer]) -> None:
    """Check that 5 steps and 5 more, from the middle of an epoch, end as 10 at once do."""

    def steps(n: int) -> L.Trainer:
        return make_trainer(max_steps=n, limit_val_batches=1, callbacks=[EMA(0.9)])

    whole = run(make_model(), steps(10))
    first = run(make_model(), trainer := steps(5), name="half.ckpt")
    assert first["global_step"] == 5
    resumed = run(make_model(), steps(10), Path(trainer.default_root_dir) / "half.ckpt")
    for part in DECIDING[:-1]:  # Lightning counts an epoch that max_steps cut short as a whole one
        assert_identical(resumed[part], whole[part], part)


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
