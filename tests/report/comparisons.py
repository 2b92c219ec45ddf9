"""Small comparisons with numbers that a test can choose."""

import functools
from typing import Any

import torch

from lit_generative import ImageDataModule
from lit_generative.report.images import REAL_IMAGES, Pictures
from lit_generative.report.results import Comparison, Point, Run, Training


def run(name: str = "vae/a", distance: float = 2.0, error: float | None = 0.1, **changes: Any) -> Run:
    """A run with a Fréchet distance of a given standard error, and what else the test is about."""
    values: dict[str, Any] = {
        "name": name,
        "source": f"runs/{name}/version_0/checkpoints/last.ckpt",
        "family": "VAE",
        "protocol": {"extractor": "fashion", "num_fake": 2000, "data": {"image_size": [28, 28]}, "floor": {"x": 1.0}},
        "metrics": {"frechet_distance": distance, "recall": 0.5},
        "errors": {} if error is None else {"frechet_distance": error, "recall": 0.01},
    }
    return Run(**values | changes)


def comparison(*runs: Run) -> Comparison:
    """A comparison of the runs; real images reach 0.2."""
    floor = {"frechet_distance": 0.2, "recall": 0.83, "memorised": 0.003}
    return Comparison(list(runs), floor, [100.0, 10.0, 1.0], "a machine with 2 cores", "2026-11-23", "compare a b")


def full_run(name: str, distance: float = 2.0, **changes: Any) -> Run:
    """A run of which everything is known."""
    history = [Point({"frechet_distance": value}, images=n, minutes=n / 1e4) for n, value in ((1000, 9.0), (2000, 4.0))]
    values = {
        "images_per_second": 100.0,
        "evaluations": 30,
        "parameters": 1000,
        "sharpness": 0.9,
        "memorised": 0.0,
        "nearest": 1.0,
        "likelihood": {"bound": (3.0, 0.01)},
        "spectrum": [90.0, 9.0, 0.5],
        "curve": [Point({"frechet_distance": 5.0}, evaluations=5, images_per_second=600.0)],
        "training": Training(2000, 0.2, 0.4, history, "healthy"),
        "seed": 0,
    }
    return run(name, distance, **values | changes)


@functools.cache
def real_images(split: str) -> torch.Tensor:
    """Some images (32, 1, 28, 28) of the embedded data."""
    return next(iter(ImageDataModule().loader(split, batch_size=32)))["image"]


def pictures(*names: str) -> dict[str, Pictures]:
    """Real test images in the place of samples, and real training images as the nearest ones."""
    images, near = real_images("test").split(9), real_images("train")[:4]
    made = {name: Pictures(own, torch.stack([own[:4], near], dim=1)) for name, own in zip(names, images, strict=False)}
    return made | {REAL_IMAGES: Pictures(images[len(names)])}
