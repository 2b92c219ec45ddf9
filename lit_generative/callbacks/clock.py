"""How long a model was trained, as a number that comparisons can rest on."""

from time import monotonic
from typing import Any

import lightning as L
import torch

from lit_generative.core import GenerativeModule
from lit_generative.evaluation import Evaluation

__all__ = ["TrainingClock", "in_all"]


class TrainingClock(L.Callback):
    """Counts the seconds of training, and adds them to each record of ``evaluation.json``.

    Loading data, logging and saving count; validation, pictures and evaluation do not. Checkpoints keep the count, so
    that a resumed run goes on with it. The records get ``training_minutes`` and ``device_minutes``: the same times the
    devices at work, which are the accelerators of all processes, or on a CPU the threads that torch computes with.

    Args:
        before: Seconds, and seconds times devices, of the training of another model that this one builds on. The
            records count them; a budget, which this training has for itself, does not.

    Attributes:
        seconds: Seconds of training so far; None if that is not known, because the run was resumed from a checkpoint
            that was saved without a clock.
        device_seconds: The same times the devices.
    """

    def __init__(self, before: tuple[float, float] = (0.0, 0.0)) -> None:
        self.before = before
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
        seconds, device_seconds = in_all(self.state_dict())
        return {"training_minutes": seconds / 60, "device_minutes": device_seconds / 60}

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"seconds": self.seconds, "device_seconds": self.device_seconds, "before": list(self.before)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a count."""
        self.seconds, self.device_seconds = state_dict["seconds"], state_dict["device_seconds"]
        self.before = tuple(state_dict.get("before", self.before))


def in_all(state: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds, and the seconds times devices, of a clock's state, with those of what it builds on."""
    before, device_before = state.get("before", (0.0, 0.0))
    return state["seconds"] + before, state["device_seconds"] + device_before
