"""The loss curve of a diffusion model in bf16 against that in fp32: same weights, batches, times and noise.

Usage: python benchmarks/precision.py [--steps 400] [--window 50]

The table has the mean loss of each window of steps and the speed of both runs. The seed makes both start from the same
weights and draw the same noise, so that what differs is rounding alone; the last column says by how much.
"""

import argparse
import platform
import time
from functools import partial
from pathlib import Path
from statistics import mean

import lightning as L
import torch

from lit_generative import DDPM, ImageDataModule
from lit_generative.diffusion import CosineSchedule, MinSNRWeight, StratifiedTimes, VelocityPrediction
from lit_generative.nn import UNet
from lit_generative.optim import Muon


class LossCurve(L.Callback):
    """Keeps the loss of every step, and when the first ended."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.start = 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Note the loss."""
        self.start = self.start or time.perf_counter()
        self.losses.append(float(outputs["loss"]))


def train(precision: str, steps: int) -> tuple[list[float], float]:
    """Return the loss of each step and the images/s, of the network and optimizer of ``diffusion/fashion``."""
    L.seed_everything(0, verbose=False)
    data = ImageDataModule(batch_size=64)
    network = UNet(data.image_shape, widths=(32, 64), blocks=1, attention=(), head_dim=32, groups=16, patch=2)
    ways = {
        "schedule": CosineSchedule(),
        "prediction": VelocityPrediction(),
        "weight": MinSNRWeight(),
        "times": StratifiedTimes(),
    }
    model = DDPM(network, data.image_shape, optimizer=partial(Muon, lr=4e-3), **ways)
    curve = LossCurve()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "limit_val_batches": 0, "use_distributed_sampler": False}
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        precision=precision,
        callbacks=[curve],
        default_root_dir=Path("runs"),
        **quiet,
    )
    trainer.fit(model, data)
    return curve.losses, 64 * (steps - 1) / (time.perf_counter() - curve.start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--window", type=int, default=50)
    options = parser.parse_args()
    curves, speeds = zip(*(train(precision, options.steps) for precision in ("32-true", "bf16-mixed")), strict=True)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"fp32 {speeds[0]:.0f} images/s, bf16 {speeds[1]:.0f} images/s\n")
    print("| steps | fp32 | bf16 | ratio |\n|---|---|---|---|")
    for first in range(0, options.steps, options.window):
        full, half = (mean(curve[first : first + options.window]) for curve in curves)
        print(f"| {first + 1} to {first + options.window} | {full:.4f} | {half:.4f} | {half / full:.4f} |")


if __name__ == "__main__":
    main()
