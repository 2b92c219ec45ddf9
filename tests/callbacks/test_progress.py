import itertools
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest

from lit_generative import VAE, ImageDataModule
from lit_generative.callbacks import ImagesProgressBar, progress


class Read(L.Callback):
    """Reads the bar after every batch."""

    def __init__(self, bar: ImagesProgressBar) -> None:
        self.bar = bar
        self.shown: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        self.shown.append(self.bar.get_metrics(trainer, pl_module))


def test_the_bar_counts_images_and_the_time_left(
    make_vae: Callable[..., VAE], make_trainer: Callable[..., L.Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=2)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    bar = ImagesProgressBar(refresh_rate=1000)
    read = Read(bar)
    options = {"max_epochs": 2, "limit_val_batches": 0, "enable_progress_bar": True}
    data = ImageDataModule(subset=60, batch_size=20)
    make_trainer(callbacks=[bar, read], accumulate_grad_batches=3, **options).fit(make_vae(), datamodule=data)
    first, last = read.shown[0], read.shown[-1]
    assert (first["images/s"], first["left"]) == ("10", "0:10")  # 20 images in 2 s, and five more batches
    assert last["left"] == "0:00"
    assert "v_num" not in last
