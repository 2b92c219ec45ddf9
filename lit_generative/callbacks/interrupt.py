"""A clean end on Ctrl-C, and when a cluster asks for one."""

import signal
import sys
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_generative.callbacks.run import run_folder, validates_next

__all__ = ["SaveOnSignal"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
STEPS_BETWEEN_LOOKS = 10  # of several processes, which have to ask each other: that costs time


class SaveOnSignal(L.Callback):
    """On Ctrl-C, SIGTERM or SIGUSR1 finishes the step under way, saves ``last.ckpt`` and ends; a second ends at once.

    Of several processes it does not matter which one gets the signal: all of them end after the same step. Where a
    validation is due after that step, it is done first, so that a resumed run has it.

    Attributes:
        saved: The checkpoint that was saved, or "".
        received: The number of the signal that ended the run, or 0.
    """

    def __init__(self) -> None:
        self.saved = ""
        self.received = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals; that of a cluster whose runs Lightning queues again stays Lightning's."""
        self.received = 0
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if number in (signal.SIGINT, signal.SIGTERM) or handler == signal.SIG_DFL:
                self._previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        print(f"\n{signal.Signals(number).name}: saving after this step; again to stop at once", file=sys.stderr)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end between two steps, where weights and optimizer agree."""
        is_alone = trainer.world_size == 1
        is_between = not trainer.fit_loop._should_accumulate() and not validates_next(trainer)
        if is_between and (is_alone or trainer.global_step % STEPS_BETWEEN_LOOKS == 0):
            self._end_if_asked(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save and end after the validation that ends an epoch."""
        self._end_if_asked(trainer)

    def _end_if_asked(self, trainer: L.Trainer) -> None:
        received = self.received
        if trainer.world_size > 1:
            highest = torch.tensor(float(received), device=trainer.strategy.root_device)
            received = int(trainer.strategy.reduce(highest, reduce_op="max"))  # type: ignore[arg-type]
        if received:
            self.received = received
            checkpoint = trainer.checkpoint_callback
            folder = checkpoint.dirpath if isinstance(checkpoint, ModelCheckpoint) else None
            self.saved = f"{folder or run_folder(trainer) / 'checkpoints'}/last.ckpt"
            trainer.save_checkpoint(self.saved)
            raise KeyboardInterrupt

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back: what follows the training can simply stop, and is done when the run is resumed."""
        self._restore()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
