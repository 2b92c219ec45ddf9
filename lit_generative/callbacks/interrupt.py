"""A clean end on Ctrl-C."""

import signal
import sys
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["SaveOnInterrupt"]


class SaveOnInterrupt(L.Callback):
    """On Ctrl-C, finishes the step under way, saves ``last.ckpt`` and ends; a second Ctrl-C ends at once.

    Attributes:
        saved: The checkpoint that was saved on Ctrl-C, or "".
    """

    def __init__(self) -> None:
        self.saved = ""
        self._requested = False
        self._previous: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over Ctrl-C."""
        self._requested = False
        self._previous = signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        self._restore()
        print("\nCtrl-C: saving after this step; again to stop at once", file=sys.stderr)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and end between two steps, where weights and optimizer agree."""
        if self._requested:
            checkpoint = trainer.checkpoint_callback
            folder = (isinstance(checkpoint, ModelCheckpoint) and checkpoint.dirpath) or trainer.default_root_dir
            self.saved = f"{folder}/last.ckpt"
            trainer.save_checkpoint(self.saved)
            raise KeyboardInterrupt

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give Ctrl-C back: what follows the training can simply stop."""
        self._restore()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give Ctrl-C back."""
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        self._previous = None
