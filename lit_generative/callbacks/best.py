"""Whether there is a best state of a run to keep: not without a measure of quality."""

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

__all__ = ["keep_no_best"]


def keep_no_best(trainer: L.Trainer, checkpoints: Sequence[ModelCheckpoint], why: str) -> None:
    """Let checkpoints that would choose by what is no measure, or is not there, choose nothing, and say so.

    Where another callback saves the last state, they save nothing. Else they keep the latest state.

    Args:
        trainer: Whose callbacks they are, before it starts.
        checkpoints: Those that watch it.
        why: Begins the sentence that is printed.
    """
    for checkpoint in checkpoints:
        others = (c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c is not checkpoint)
        is_last_saved = any(other.monitor is None and other.save_top_k != 0 for other in others)
        checkpoint.monitor = None
        checkpoint.save_top_k = 0 if is_last_saved else min(checkpoint.save_top_k, 1)  # no two can be ranked
        kept = (
            f"there will be no {checkpoint.filename}.ckpt, only the last state"
            if is_last_saved
            else "the checkpoint is that of the latest state"
        )
        if trainer.is_global_zero:
            print(f"{why}: {kept}. A checkpoint.monitor that measures quality is evaluation/frechet_distance.")
