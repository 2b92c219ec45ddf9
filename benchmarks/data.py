"""How fast the data module is, on the embedded set: against the usual way, and as seen by a training step.

Usage: python benchmarks/data.py [--rounds N]

Everything is measured in turns, so that other load on the machine meets all alike; medians and ratios are printed.
"""

import argparse
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lit_generative.data import ImageDataModule
from lit_generative.data.sources import open_source

BATCH_SIZE = 128
TARGETS = {"loading": 80.0, "training": 0.97}


def usual_loader(workers: int) -> DataLoader:
    """`datasets` with `set_transform` and a DataLoader that shuffles."""
    options = {"config_name": None, "revision": None, "streaming": False, "skip_unreadable": False}
    table = open_source("fashion-mnist", **options).tables["train"]

    def transform(rows: dict[str, list]) -> dict[str, list]:
        images = [torch.from_numpy(np.array(image)[None]).float() / 127.5 - 1 for image in rows["image"]]
        return {"image": images, "label": rows["label"]}

    assert isinstance(table, datasets.Dataset)
    table.set_transform(transform)
    return DataLoader(table, BATCH_SIZE, shuffle=True, drop_last=True, num_workers=workers)


def images_per_second(loader: Iterable[dict[str, Tensor]], passes: int) -> float:
    start = time.perf_counter()
    images = sum(len(batch["image"]) for _ in range(passes) for batch in loader)
    return images / (time.perf_counter() - start)


def training_step() -> Callable[[Tensor], None]:
    """A step of an auto-encoder of the size of a small VAE."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 32), nn.Linear(32, 400), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Linear(400, 784), nn.Unflatten(1, (1, 28, 28)))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        (network(x) - x).square().sum((1, 2, 3)).mean().backward()
        optimizer.step()

    return step


def compare_loading(rounds: int) -> None:
    loaders = {
        "ImageDataModule, in memory": (ImageDataModule(batch_size=BATCH_SIZE).train_dataloader(), 20),
        "datasets + set_transform + DataLoader, 0 workers": (usual_loader(0), 1),
        "datasets + set_transform + DataLoader, 2 workers": (usual_loader(2), 1),
    }
    for loader, _ in loaders.values():
        next(iter(loader))
    speeds: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(rounds):
        for name, (loader, passes) in loaders.items():
            speeds[name].append(images_per_second(loader, passes))
    ours, *theirs = (statistics.median(values) for values in speeds.values())
    for name, values in speeds.items():
        print(f"{name:50} {statistics.median(values):12,.0f} images/s")
    print(f"{'ratio to the faster of the others':50} {ours / max(theirs):12.0f}x (target {TARGETS['loading']:.0f}x)\n")


def compare_training(rounds: int) -> None:
    loader = ImageDataModule(batch_size=BATCH_SIZE).train_dataloader()
    fixed = next(iter(loader))
    step = training_step()
    seconds: dict[str, list[float]] = {"the loader's batches": [], "one fixed batch": []}
    for _ in range(rounds):
        # Step by step in turns: a busy machine's pauses are longer than a step, but rarer
        sources = {"the loader's batches": iter(loader), "one fixed batch": itertools.repeat(fixed)}
        for turn in range(len(loader)):
            for name in list(sources)[:: 1 if turn % 2 else -1]:
                start = time.perf_counter()
                step(next(sources[name])["image"])
                seconds[name].append(time.perf_counter() - start)
    ours, bare = (statistics.median(values) for values in seconds.values())
    for name, values in seconds.items():
        print(f"training on {name:38} {BATCH_SIZE / statistics.median(values):12,.0f} images/s")
    print(f"{'of the speed on a fixed batch':50} {bare / ours:12.1%} (target {TARGETS['training']:.0%})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="torch's threads in this process")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    torch.set_num_threads(arguments.threads)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} threads"
    print(f"{machine}, torch {torch.__version__}, datasets {datasets.__version__}\n")
    compare_loading(rounds)
    compare_training(rounds)


if __name__ == "__main__":
    main()
