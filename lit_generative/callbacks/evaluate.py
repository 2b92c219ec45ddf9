"""Evaluation of a model's samples while it trains, at the end, and in ``test``."""

import json
import os
from pathlib import Path
from typing import Any

import lightning as L

from lit_generative.callbacks.samples import run_folder
from lit_generative.callbacks.table import print_table
from lit_generative.core import GenerativeModule
from lit_generative.evaluation import Evaluation, Evaluator

__all__ = ["Evaluate"]


class Evaluate(L.Callback):
    """Draws samples, compares them with real images, and reports: logged, printed, and in ``evaluation.json``.

    It runs at the end of ``fit`` and in ``test``, and in between if asked. The file keeps all evaluations of a run,
    each with its protocol.

    Args:
        evaluator: The protocol.
        every_n_epochs: Epochs between evaluations during training; None: only at the end.
        every_n_images: Training images between evaluations (at the next validation); None: only at the end.
    """

    def __init__(
        self, evaluator: Evaluator, every_n_epochs: int | None = None, every_n_images: int | None = None
    ) -> None:
        for name, value in {"every_n_epochs": every_n_epochs, "every_n_images": every_n_images}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1, or null for an evaluation at the end only")
        self.evaluator = evaluator
        self.every_n_epochs = every_n_epochs
        self.every_n_images = every_n_images
        self._unavailable = ""
        self._evaluated_at = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Load the extractor now: a missing one is to be known before hours of training.

        An extractor that was asked for and is missing is an error. With ``auto`` the run goes on and says that the
        samples' quality is not measured.
        """
        if stage not in ("fit", "test"):
            return
        try:
            self.evaluator.check(_data(trainer))
        except FileNotFoundError as error:
            if self.evaluator.extractor != "auto":
                raise
            self._unavailable = str(error)
            if trainer.is_global_zero:
                print(f"The quality of samples will not be measured: {error}")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate if it is time."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or self._unavailable:
            return
        epochs, images = trainer.current_epoch + 1, pl_module.images_seen - self._evaluated_at
        if (self.every_n_epochs and epochs % self.every_n_epochs == 0) or (
            self.every_n_images and images >= self.every_n_images
        ):
            self._evaluated_at = pl_module.images_seen
            evaluation = self._evaluate(trainer, pl_module, {})
            pl_module.log_dict(_scalars(evaluation))

    def on_train_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate the trained model."""
        self._report(trainer, pl_module, "val/")

    def on_test_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate the tested model."""
        self._report(trainer, pl_module, "test/")

    def on_validation_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Print the losses of ``validate``."""
        if trainer.state.fn == "validate" and trainer.is_global_zero:
            print_table("validation", _losses(trainer, "val/"), None)

    def _report(self, trainer: L.Trainer, model: GenerativeModule, prefix: str) -> None:
        losses = _losses(trainer, prefix)
        evaluation = None if self._unavailable else self._evaluate(trainer, model, losses)
        if evaluation is not None:
            for logger in trainer.loggers:  # too late for self.log
                logger.log_metrics(_scalars(evaluation) | {"images_seen": model.images_seen}, trainer.global_step)
        if trainer.is_global_zero:
            title = f"{type(model).__name__} after {model.images_seen:,} images"
            print_table(title, losses, evaluation, self._unavailable)

    def _evaluate(self, trainer: L.Trainer, model: GenerativeModule, losses: dict[str, float]) -> Evaluation:
        evaluation = self.evaluator.evaluate(model, _data(trainer))
        folder = run_folder(trainer)  # asked for by every process: the first one broadcasts it
        if trainer.is_global_zero:
            record = {"images_seen": model.images_seen, "step": trainer.global_step, "losses": losses}
            append_record(folder / "evaluation.json", record | evaluation.to_dict())
            for logger in trainer.loggers:
                logger.log_hyperparams({"evaluation_protocol": evaluation.protocol})
        return evaluation


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Add a record to a JSON list; the file is replaced in one piece, so that it is whole at any time."""
    records = json.loads(path.read_text()) if path.is_file() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".json.part")
    scratch.write_text(json.dumps([*records, record], indent=2))
    os.replace(scratch, path)


def _data(trainer: L.Trainer) -> Any:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if data is None:
        raise ValueError("Evaluate needs a data module: trainer.fit(model, datamodule=ImageDataModule(...))")
    return data


def _losses(trainer: L.Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}


def _scalars(evaluation: Evaluation) -> dict[str, float]:
    return {f"evaluation/{name}": float(value) for name, value in evaluation.metrics.items()}
