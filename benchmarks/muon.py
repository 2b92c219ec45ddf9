"""This package's Muon against timm's and torch's: the time of a step, and the loss that a number of images reaches.

Usage: python benchmarks/muon.py [--images 12800] [--seed 0]

All train the network of ``diffusion/fashion`` with its loss, from the same weights, in turns of one step each, on the
same images, times and noise. The times are of the optimizers alone, medians over the steps; as they are taken in turn,
a machine that is busy slows all of them. The losses are means over the last quarter of the images, and what follows ±
is the standard error of the difference to the first row's. torch's Muon takes matrices only; the rest is left to AdamW.
"""

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from statistics import mean, median, stdev

import timm.optim
import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from lit_generative import DDPM, ImageDataModule
from lit_generative.diffusion import CosineSchedule, MinSNRWeight, StratifiedTimes, VelocityPrediction
from lit_generative.nn import UNet
from lit_generative.optim import Muon

LR = 8e-3
BATCH_SIZE = 64
AS_OURS = {"nesterov": True, "ns_coefficients": "original", "betas": (0.9, 0.99)}


def torch_muon(network: nn.Module) -> list[Optimizer]:
    """Return torch's Muon of all matrices, and AdamW of the rest, convolutions among them."""
    matrices = [p for p in network.parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if p.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=LR, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return [muon, AdamW(others, lr=LR, betas=(0.9, 0.99), weight_decay=0.0)]


OPTIMIZERS: dict[str, Callable[[nn.Module], list[Optimizer]]] = {
    "lit_generative": lambda network: [Muon(network.parameters(), lr=LR)],
    "timm, set as ours is": lambda network: [timm.optim.Muon(network.parameters(), lr=LR, **AS_OURS)],
    "timm, as it comes": lambda network: [timm.optim.Muon(network.parameters(), lr=LR)],
    "torch, AdamW for convolutions": torch_muon,
}


class Training:
    """One model and its optimizers, trained step by step."""

    def __init__(self, make: Callable[[nn.Module], list[Optimizer]], steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        network = UNet((1, 28, 28), widths=(32, 64), blocks=1, attention=(), head_dim=32, groups=16, patch=2)
        ways = {"schedule": CosineSchedule(), "prediction": VelocityPrediction(), "weight": MinSNRWeight()}
        self.model = DDPM(network, (1, 28, 28), times=StratifiedTimes(), **ways)
        self.optimizers = make(network)
        schedule = partial(OneCycleLR, max_lr=LR, pct_start=0.05, div_factor=25, final_div_factor=4)
        self.schedules = [schedule(o, total_steps=steps, cycle_momentum=False) for o in self.optimizers]
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def step(self, images: torch.Tensor, seed: int) -> None:
        """Take a step, and note its loss and the time that the optimizers take."""
        torch.manual_seed(seed)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.model.losses(images)["loss"].mean()
        self.model.zero_grad()
        loss.backward()
        start = time.perf_counter()
        for optimizer in self.optimizers:
            optimizer.step()
        self.seconds.append(time.perf_counter() - start)
        for schedule in self.schedules:
            schedule.step()
        self.losses.append(loss.item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    steps = options.images // BATCH_SIZE
    trainings = {name: Training(make, steps, options.seed) for name, make in OPTIMIZERS.items()}
    data = ImageDataModule(batch_size=BATCH_SIZE)
    images = torch.cat([batch["image"] for batch in data.loader("train", batch_size=512)])
    generator = torch.Generator().manual_seed(options.seed)
    for step in range(steps):
        batch = images[torch.randint(len(images), (BATCH_SIZE,), generator=generator)]
        for training in trainings.values():
            training.step(batch, step)
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, timm {timm.__version__}"
    )
    print(f"{steps * BATCH_SIZE:,} images, seed {options.seed}\n")
    print("| Muon of | ms a step | ratio | loss | difference |\n|---|---|---|---|---|")
    first = next(iter(trainings.values()))
    for name, training in trainings.items():
        seconds, last = median(training.seconds), slice(-max(2, steps // 4), None)
        differences = [a - b for a, b in zip(training.losses[last], first.losses[last], strict=True)]
        cells = [
            name,
            f"{1000 * seconds:.1f}",
            f"{seconds / median(first.seconds):.2f}",
            f"{mean(training.losses[last]):.5f}",
            f"{mean(differences):+.5f} ± {stdev(differences) / len(differences) ** 0.5:.5f}",
        ]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
