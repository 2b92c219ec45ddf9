"""How long a model was trained, as a number that comparisons can rest on."""

from time import monotonic
from typing import Any

import lightning as L
import torch

from lit_generative.core import GenerativeModule
from lit_generative.evaluation import Evaluation

__all__ = ["TrainingClock"]


class TrainingClock(L.Callback):
    """Counts the seconds of training, and adds them to each record of ``evaluation.json``.

    Loading data, logging and saving count; validation, pictures and evaluation do not. Checkpoints keep the count, so
    that a resumed run goes on with it. The records get ``training_minutes`` and ``device_minutes``: the same times the
    devices at work, which are the accelerators of all processes, or on a CPU the threads that torch computes with.

    Attributes:
        seconds: Seconds of training so far; None if that is not known, because the run was resumed from a checkpoint
            that was saved without a clock.
        device_seconds: The same times the devices.
    """

    def __init__(self) -> None:
        self.seconds: float | None = 0.0
        self.device_seconds = 0.0
        self._since: float | None = None

    def read(self) -> float:
        """Return the seconds up to now; 0 where they are not known."""
        running = 0.0 if self._since is None else monotonic() - self._since
        return (self.seconds or 0.0) + running

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start."""
        if trainer.global_step and not self.seconds:
            self.seconds = None
        self._since = monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count up to here: what follows the last step, above all the last evaluation, is no training."""
        self._count(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop, once the device has done its work."""
        if self._since is not None:
            if pl_module.device.type != "cpu":
                torch.accelerator.synchronize(pl_module.device)
            self._count(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on."""
        if self._since is not None:
            self._since = monotonic()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop for good."""
        self._since = None

    def _count(self, trainer: L.Trainer) -> None:
        now = monotonic()
        if self.seconds is not None and self._since is not None:
            per_process = torch.get_num_threads() if trainer.strategy.root_device.type == "cpu" else 1
            self.seconds += now - self._since
            self.device_seconds += (now - self._since) * per_process * trainer.world_size
        self._since = now

    def on_evaluation(self, trainer: L.Trainer, model: GenerativeModule, evaluation: Evaluation) -> dict[str, Any]:
        """Return the minutes, or nothing if they are not known."""
        if self.seconds is None:
            return {}
        return {"training_minutes": self.seconds / 60, "device_minutes": self.device_seconds / 60}

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"seconds": self.seconds, "device_seconds": self.device_seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a count."""
        self.seconds, self.device_seconds = state_dict["seconds"], state_dict["device_seconds"]
