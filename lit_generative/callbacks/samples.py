"""Pictures of a model's samples while it trains, and files of what ``predict`` draws."""

from typing import Any, ClassVar

import lightning as L
import torch
from torch import Tensor

from lit_generative.callbacks.pictures import PictureCallback
from lit_generative.callbacks.run import conditions_of, run_folder
from lit_generative.checks import check_count
from lit_generative.contracts import NamesClasses
from lit_generative.core import GenerativeModule
from lit_generative.labels import class_suffix
from lit_generative.nn.image_conditions import ImageCondition
from lit_generative.pictures import are_points, picture, save_csv, save_png

__all__ = ["SampleGrid", "SampleWriter"]


class SampleGrid(PictureCallback):
    """Draws the same noise through the model after every validation and at the end, so that progress can be watched.

    The grid is in the run's folder ``grids``, and goes to every logger that takes images. A conditional model shows one
    class a column, one that is told images shows what it is told, its sample and the validation image side by side.
    Points of the plane become a scatter picture instead.

    Args:
        num_samples: Images in the grid; points need more, 2,000 for instance.
        every_n_epochs: Epochs between grids.
        seed: The seed of the noise.
    """

    folders: ClassVar[dict[str, str]] = {"samples": "grids"}
    is_at_every_validation: ClassVar[bool] = True

    def __init__(self, num_samples: int = 64, every_n_epochs: int = 1, seed: int = 0) -> None:
        super().__init__(every_n_epochs, seed)
        check_count("num_samples", num_samples)
        self.num_samples = num_samples

    def draw(self, trainer: L.Trainer, model: GenerativeModule) -> dict[str, Tensor]:
        """Return the grid."""
        columns = model.num_classes or round(self.num_samples**0.5)
        y, batch = conditions_of(trainer, self, model, self.num_samples, columns)
        images = model.sample(self.num_samples, y, generator=torch.Generator().manual_seed(self.seed))
        told = model.condition if isinstance(model.condition, ImageCondition) else None
        given = None if told is None or y is None else told.baseline(y)
        if given is not None:
            rows = torch.stack([given, images.to(given.device), batch["image"]], dim=1)
            return {"samples": picture(rows.flatten(0, 1).float(), 3 * max(1, columns // 3))}
        return {"samples": picture(images, columns)}


class SampleWriter(L.Callback):
    """Writes what ``predict`` draws as PNG files into the run's ``samples`` folder, by process, batch, place and class.

    Points of the plane go into a CSV file a batch. A dry run (``fast_dev_run``) writes nothing.
    """

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask for the folder, which every process has to do equally often."""
        self.folder = run_folder(trainer) / "samples"

    def on_predict_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: GenerativeModule,
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
        labels = None if pl_module.num_classes is None else pl_module.unpack(batch)[1]
        data = trainer.datamodule  # type: ignore[attr-defined]
        names = data.class_names if isinstance(data, NamesClasses) else None
        for i, image in enumerate(outputs):
            suffix = "" if labels is None else class_suffix(int(labels[i]), names)
            save_png(image, self.folder / f"{name}_{i:04d}{suffix}.png")
