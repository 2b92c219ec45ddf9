"""One half of Fashion-MNIST's classes to the other, with few images: from scratch, fine-tuned, and by adapters.

Usage: python benchmarks/finetuning.py [--images 200] [--seconds 60] [--base_seconds 180] [--output runs/finetuning]

The base is a diffusion model of the classes 0 to 4 (T-shirts to coats); what is tuned to is classes 5 to 9, in folders
of PNG files. Times are of the process's CPU on one thread, so that a busy machine changes nothing; evaluation is not
counted. Each way has its best of the learning rates, by the distance to validation images; the number shown is that to
test images, which none was chosen by. The learning rate is constant and weights are averaged, whatever the way.
"""

import argparse
import platform
import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from lit_generative import DDPM, Evaluator, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.diffusion import CosineSchedule, DPMSolverPP2M, MinSNRWeight, StratifiedTimes, VelocityPrediction
from lit_generative.fine_tuning import take_weights
from lit_generative.nn import LowRankAdapters, UNet
from lit_generative.pictures import save_png

SHAPE, OLD, NEW = (1, 28, 28), range(5), range(5, 10)
WAYS = {  # learning rates
    "from scratch": (1e-3, 3e-3),
    "fine-tuned": (3e-4, 1e-3),
    "adapters, rank 8": (1e-3, 3e-3),
}


class AfterSeconds(L.Callback):
    """Ends a training after so many seconds of the process's CPU."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.start = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Look at it."""
        trainer.should_stop = time.process_time() - self.start >= self.seconds


def write(classes: range, images: int, folder: Path) -> ImageDataModule:
    """Write so many training images of some classes, equally many of each, and all others; return them as data."""
    if not folder.is_dir():
        data, counts = ImageDataModule(batch_size=500), dict.fromkeys(classes, 0)
        for split in ("train", "val", "test"):
            for batch in data.loader(split):
                for image, label in zip(batch["image"], batch["label"].tolist(), strict=True):
                    if label in classes and (split != "train" or counts[label] < images // len(classes)):
                        counts[label] += split == "train"
                        path = folder / split / str(label) / f"{len(list((folder / split / str(label)).glob('*')))}.png"
                        save_png(image, path)
    return ImageDataModule(folder, batch_size=64)


def build(lr: float, adapters: LowRankAdapters | None = None) -> DDPM:
    """Return the model of ``diffusion/fashion`` without guidance, with a constant learning rate."""
    torch.manual_seed(0)
    network = UNet(SHAPE, (32, 64), 1, (), head_dim=32, groups=16, patch=2, adapters=adapters)
    ways = {"schedule": CosineSchedule(), "prediction": VelocityPrediction(), "weight": MinSNRWeight()}
    optimizer = partial(torch.optim.AdamW, lr=lr, fused=True)
    return DDPM(network, SHAPE, times=StratifiedTimes(), sampler=DPMSolverPP2M(10), optimizer=optimizer, **ways)


def train(model: DDPM, data: ImageDataModule, seconds: float) -> L.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    callbacks = [EMA(0.995), AfterSeconds(seconds)]
    options: dict[str, Any] = {"limit_val_batches": 0, "enable_checkpointing": False, "precision": "bf16-mixed"}
    trainer = L.Trainer(accelerator="cpu", max_epochs=-1, callbacks=callbacks, **options, **quiet)
    trainer.fit(model, datamodule=data)
    return trainer


def distance(model: DDPM, data: ImageDataModule, split: Any) -> float:
    return Evaluator("fashion", num_samples=500, split=split).evaluate(model.eval(), data).metrics["frechet_distance"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--base_seconds", type=float, default=180.0)
    parser.add_argument("--output", type=Path, default=Path("runs/finetuning"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    base, data = options.output / "base.ckpt", write(NEW, options.images, options.output / f"new-{options.images}")
    if not base.is_file():
        old = write(OLD, 10**6, options.output / "old")
        train(build(3e-3), old, options.base_seconds).save_checkpoint(base)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}"
    print(f"{machine}, {options.images} images, {options.seconds:g} s of CPU")
    print("\n| | learning rate | trained parameters | images seen | Fréchet distance |\n|---|---|---|---|---|")
    untouched = build(1e-3)
    take_weights(untouched, base)
    print(f"| the base as it is | | | | {distance(untouched, data, 'test'):.2f} |", flush=True)
    for way, rates in WAYS.items():
        tried = {}
        for lr in rates:
            model = build(lr, LowRankAdapters(8) if "adapters" in way else None)
            if way != "from scratch":
                take_weights(model, base)
            train(model, data, options.seconds)
            tried[distance(model, data, "val")] = (lr, model)
        lr, model = tried[min(tried)]
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        print(
            f"| {way} | {lr:g} | {count:,} | {model.images_seen:,} | {distance(model, data, 'test'):.2f} |", flush=True
        )


if __name__ == "__main__":
    main()
