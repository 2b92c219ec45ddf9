"""The checkpoint that a run goes on from."""

from time import monotonic
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_generative.budgets import budget_of
from lit_generative.callbacks.run import validates_next
from lit_generative.checks import check_range

__all__ = ["LastCheckpoint"]

MOST_SAVING = 0.03  # of the time, under a budget
STEPS_BETWEEN_LOOKS = 10  # of several processes, the first one decides; asking it costs time


class LastCheckpoint(ModelCheckpoint):
    """Saves ``last.ckpt`` at the end of every epoch and, however long an epoch is, about every minute.

    Under a :class:`~lit_generative.callbacks.Budget` not every epoch counts: those of small sets are short.

    ``ModelCheckpoint``'s own ``save_last`` is a copy of the last best one, its ``train_time_interval`` excludes the
    ends of epochs, and under manual optimisation it saves at no interval of time.

    Args:
        minutes: How long a run that is killed may have worked in vain.

    Raises:
        ValueError: If ``minutes`` is not positive.
    """

    def __init__(self, minutes: float = 1.0) -> None:
        check_range("minutes", minutes, above=0, hint="it is the time between two checkpoints")
        super().__init__(filename="last", save_on_train_epoch_end=True, enable_version_counter=False)
        self.minutes = minutes
        self._saved_at = self._took = 0.0
        self._step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._saved_at, self._step = monotonic(), trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time, and the optimizer has just stepped (a checkpoint does not hold half a gradient).

        Where a validation is due, that comes first: a run resumed from here would go without it.
        """
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        has_stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if has_stepped and self._step % STEPS_BETWEEN_LOOKS == 0 and not validates_next(trainer):
            is_time = monotonic() - self._saved_at >= 60 * self.minutes
            if trainer.strategy.broadcast(is_time):
                self.best_model_path = f"{self.dirpath}/last.ckpt"  # what errors name as the last checkpoint
                trainer.save_checkpoint(self.best_model_path)
                self._saved_at = monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; under a budget, in which an epoch may be a single step, if little of the time has gone into that."""
        begun = monotonic()
        is_time = trainer.should_stop or begun - self._saved_at >= self._took / MOST_SAVING
        if budget_of(trainer) is not None and not trainer.strategy.broadcast(is_time):
            return
        super().on_train_epoch_end(trainer, pl_module)
        self._saved_at = monotonic()
        self._took = self._saved_at - begun
