"""What callbacks share about a run: its folder, its data, its records, and what is too late for ``self.log``."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_generative.contracts import Batch, ImageData, Split
from lit_generative.core import GenerativeModule
from lit_generative.data import image_data
from lit_generative.files import write_json

__all__ = [
    "append_record",
    "conditions_of",
    "fixed_images",
    "had_ended",
    "log_scalars",
    "logged_step",
    "run_data",
    "run_folder",
    "validates_next",
]


def run_folder(trainer: L.Trainer) -> Path:
    """Return the folder of the run: the first logger's, or the trainer's root.

    Every process has to ask for it: the first one tells the others.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


def run_data(trainer: L.Trainer, callback: L.Callback) -> ImageData:
    """Return the images of the run's data module.

    Raises:
        ValueError: If there is none; the message names the callback that asks.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if data is None:
        how = f"trainer.{trainer.state.fn.value}(model, datamodule=ImageDataModule(...))"  # type: ignore[union-attr]
        raise ValueError(f"{type(callback).__name__} needs a data module: {how}")
    return image_data(data)


def fixed_images(trainer: L.Trainer, callback: L.Callback, split: Split, n: int, device: torch.device) -> Batch:
    """Return a batch of ``n`` images of a split a process, always the same ones, in the precision of the training.

    Raises:
        ValueError: If there is no data module, or there are fewer than two images.
    """
    batch: Batch = {}
    with isolate_rng():
        for part in run_data(trainer, callback).loader(split, limit=n * trainer.world_size):
            batch = {name: torch.cat([batch[name], part[name]]) for name in batch} or part
            if len(batch["image"]) >= n:
                break
    if not batch or len(batch["image"]) < 2:
        raise ValueError(f"{type(callback).__name__} needs at least 2 images of the split {split}")
    return trainer.precision_plugin.convert_input({name: values[:n].to(device) for name, values in batch.items()})


def conditions_of(
    trainer: L.Trainer, callback: L.Callback, model: GenerativeModule, n: int, columns: int | None = None
) -> tuple[Tensor | None, Batch]:
    """Return what ``n`` samples in a picture are told, always the same, and the images that it is of.

    Classes take turns, one a column. Other conditions are those of validation images, repeated if these are too few;
    they are the second result, which is empty for classes and for a model that is told nothing.
    """
    if model.condition is None:
        return None, {}
    if model.num_classes is not None:
        return torch.arange(n) % (columns or model.num_classes), {}
    batch = fixed_images(trainer, callback, "val", n, model.device)
    turns = torch.arange(n, device=model.device) % len(batch["image"])
    batch = {name: values[turns] for name, values in batch.items()}
    with isolate_rng():
        torch.manual_seed(0)  # a condition may be drawn
        return model.condition.of(batch), batch


def validates_next(trainer: L.Trainer) -> bool:
    """Whether a validation follows the present training step: a run resumed from in between would go without it."""
    return trainer.fit_loop.epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher)  # type: ignore[arg-type]


def had_ended(trainer: L.Trainer) -> bool:
    """Whether a resumed run had nothing left to train (known when ``fit`` ends): what ends a run is then still due."""
    model = trainer.lightning_module
    is_resumed = trainer.ckpt_path is not None and isinstance(model, GenerativeModule)
    return is_resumed and model.images_seen == model.resumed_at


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Add a record to a JSON list; the file is replaced in one piece, so that it is whole at any time."""
    records = json.loads(path.read_text()) if path.is_file() else []
    write_json(path, [*records, record])


def logged_step(trainer: L.Trainer) -> int:
    """Return the step at which Lightning itself logs now: in a validation it is the one before ``global_step``."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def log_scalars(trainer: L.Trainer, model: GenerativeModule, scalars: dict[str, float]) -> None:
    """Log numbers where it is too late for ``self.log``, with their place on the axis of all plots."""
    for logger in trainer.loggers if trainer.is_global_zero else []:
        logger.log_metrics(scalars | {"images_seen": model.images_seen}, logged_step(trainer))
