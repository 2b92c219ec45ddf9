"""A progress bar that counts in images."""

import time
from math import inf

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar

from lit_generative.callbacks.plan import total_steps
from lit_generative.checks import check_count
from lit_generative.core import GenerativeModule

__all__ = ["ImagesProgressBar"]


class ImagesProgressBar(TQDMProgressBar):
    """Lightning's bar, with training images a second and the time left of the whole training."""

    def __init__(self, refresh_rate: int = 10) -> None:
        check_count("refresh_rate", refresh_rate, at_least=0, hint="0 is no bar")
        super().__init__(refresh_rate=refresh_rate)
        self._start = 0.0
        self._images_at_start = 0
        self._batches_at_start = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._start = time.monotonic()
        self._images_at_start = pl_module.images_seen
        self._batches_at_start = trainer.fit_loop.total_batch_idx + 1

    def get_metrics(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: GenerativeModule
    ) -> dict[str, int | str | float | dict]:
        """Return what Lightning shows, images/s and minutes:seconds left."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        metrics.pop("images_seen", None)
        elapsed = time.monotonic() - self._start
        batches = trainer.fit_loop.total_batch_idx + 1 - self._batches_at_start
        if trainer.training and elapsed > 1 and batches > 0:
            metrics["images/s"] = f"{(pl_module.images_seen - self._images_at_start) / elapsed:,.0f}"
            total = total_steps(trainer) * trainer.accumulate_grad_batches
            if total < inf:
                left = int(elapsed / batches * max(total - self._batches_at_start - batches, 0))
                metrics["left"] = f"{left // 60}:{left % 60:02d}"
        return metrics
