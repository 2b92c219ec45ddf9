"""Small comparisons with numbers that a test can choose, and one that was stored: of two tiny models, cut small."""

import shutil
from pathlib import Path
from typing import Any

from lit_generative.report.results import Comparison, Point, Run, Training
from lit_generative.report.write import write_report

STORED = Path(__file__).parent / "stored"
PICTURES = {"samples": "pictures/vae/mlp-0-samples.png", "nearest": "pictures/vae/mlp-0-nearest.png"}


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


def seeds(name: str, *distances: float, **changes: Any) -> list[Run]:
    """Trainings of one model with a Fréchet distance each, of a small standard error."""
    return [run(name, distance, 0.01, seed=seed, **changes) for seed, distance in enumerate(distances)]


def comparison(*runs: Run) -> Comparison:
    """A comparison of the runs; real images reach 0.2."""
    floor = {"frechet_distance": 0.2, "recall": 0.83, "sharpness": 1.0, "memorised": 0.003, "nearest": 1.0}
    return Comparison(list(runs), floor, [100.0, 10.0, 1.0], "a machine with 2 cores", "2026-11-23", "compare a b")


def full_run(name: str, distance: float = 2.0, **changes: Any) -> Run:
    """A run of which everything is known."""
    history = [Point({"frechet_distance": value}, images=n, minutes=n / 1e4) for n, value in ((1000, 9.0), (2000, 4.0))]
    values = {
        "images_per_second": 100.0,
        "evaluations": 30,
        "parameters": 1000,
        "metrics": {"frechet_distance": distance, "recall": 0.5, "sharpness": 0.9, "memorised": 0.0, "nearest": 1.0},
        "likelihood": {"bound": (3.0, 0.01)},
        "spectrum": [90.0, 9.0, 0.5],
        "curve": [Point({"frechet_distance": 5.0}, evaluations=5, images_per_second=600.0)],
        "training": Training(2000, 0.2, 0.4, history, "healthy"),
        "seed": 0,
        "pictures": PICTURES,
    }
    return run(name, distance, **values | changes)


def write(found: Comparison, folder: Path) -> None:
    """Write the report of a comparison whose pictures are stored ones."""
    shutil.copytree(STORED / "pictures", folder / "pictures")
    found.save(folder / "results.json")
    write_report(folder)
