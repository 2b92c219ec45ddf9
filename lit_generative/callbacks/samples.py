"""Pictures of a model's samples while it trains, and files of what ``predict`` draws."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from lit_generative.core import GenerativeModule
from lit_generative.pictures import are_points, picture, save_csv, save_png

__all__ = ["SampleGrid", "SampleWriter", "run_folder"]


def run_folder(trainer: L.Trainer) -> Path:
    """Return the folder of the run: the first logger's, or the trainer's root."""
    return Path(trainer.log_dir or trainer.default_root_dir)


class SampleGrid(L.Callback):
    """Draws the same noise through the model after every validation and at the end, so that progress can be watched.

    The grid is a PNG file in the run's ``grids`` folder, named by the images seen, and goes to every logger that takes
    images. A conditional model shows one class a column. Points of the plane become a scatter picture instead. A dry
    run (``fast_dev_run``) draws nothing.

    Args:
        num_samples: Images in the grid; points need more, 2,000 for instance.
        every_n_epochs: Epochs between grids.
        seed: The seed of the noise.
    """

    def __init__(self, num_samples: int = 64, every_n_epochs: int = 1, seed: int = 0) -> None:
        if num_samples < 1 or every_n_epochs < 1:
            raise ValueError(f"num_samples={num_samples}, every_n_epochs={every_n_epochs}: both must be at least 1")
        self.num_samples = num_samples
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self._drawn_at = -1

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Draw the grid, with the weights that validation uses."""
        is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_training and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Draw the last grid, unless the last validation did."""
        if pl_module.images_seen != self._drawn_at:
            self.draw(trainer, pl_module)

    def draw(self, trainer: L.Trainer, model: GenerativeModule) -> None:
        """Write the grid and log it; every process draws, so that none waits, and the first one writes."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._drawn_at = model.images_seen
        path = run_folder(trainer) / "grids" / f"images_{model.images_seen:010d}.png"
        columns = model.num_classes or round(self.num_samples**0.5)
        y = torch.arange(self.num_samples) % columns if model.num_classes else None
        generator = torch.Generator().manual_seed(self.seed)
        grid = picture(model.sample(self.num_samples, y, generator=generator), columns)
        if trainer.is_global_zero:
            save_png(grid, path)
            log_picture(trainer, "samples", grid, path, model.images_seen)


class SampleWriter(L.Callback):
    """Writes what ``predict`` draws as PNG files into the run's ``samples`` folder, by process, batch and place.

    Points of the plane go into a CSV file a batch. A dry run (``fast_dev_run``) writes nothing.
    """

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask for the folder, which every process has to do equally often."""
        self.folder = run_folder(trainer) / "samples"

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch of samples (B, C, H, W)."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        name = f"{trainer.global_rank}_{batch_idx:04d}"
        if are_points(outputs):
            save_csv(outputs, self.folder / f"{name}.csv")
            return
        for i, image in enumerate(outputs):
            save_png(image, self.folder / f"{name}_{i:04d}.png")


def log_picture(trainer: L.Trainer, name: str, image: Tensor, path: Path, images_seen: int) -> None:
    """Give an image (C, H, W) in [-1, 1], which is in the file ``path`` already, to each logger that takes images."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_metrics({"images_seen": images_seen}, trainer.global_step)  # the picture's place on the axis
            logger.log_image(key=name, images=[str(path)], step=trainer.global_step)  # wandb takes tensors as 0...255
        elif (add_image := getattr(getattr(logger, "experiment", None), "add_image", None)) is not None:
            add_image(name, image.add(1).div(2), trainer.global_step)
