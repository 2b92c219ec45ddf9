"""Objectives, priors, likelihoods and structures of VAEs, each trained for the same minutes, in one table.

Usage: python benchmarks/vaes.py [--variants plain ladder] [--minutes 5] [--output runs/vaes]

Each variant is a recipe with some options of ``fit`` more. Trainings go on where they were stopped, and what is done is
not done again. The bounds are on -log P of the 8-bit test images, whatever the likelihood, in the same units for all;
for codes, whose posterior is one point, they are one bound. What follows ± is a standard error.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from lit_generative.training.budget import TimedTraining
from lit_generative.training.cli import TrainerCLI

LOGISTICS = [  # three channels for each component
    *("--model.likelihood", "DiscretizedLogisticMixtureLikelihood", "--model.likelihood.components", "5"),
    *("--model.decoder.output_channels", "15"),
]
PLAIN = ["vae/fashion", "--model.aggregate_prior", "null"]
VARIANTS = {  # recipe, and options of fit
    "plain": PLAIN,
    "beta 0.5": [*PLAIN, "--model.regulariser", "BetaRegulariser", "--model.regulariser.beta", "0.5"],
    "beta 4": [*PLAIN, "--model.regulariser", "BetaRegulariser", "--model.regulariser.beta", "4"],
    "free bits, 0.5 nats": [*PLAIN, "--model.regulariser", "FreeBitsRegulariser", "--model.regulariser.nats", "0.5"],
    "IWAE, 8 samples": [*PLAIN, "--model", "lit_generative.vae.IWAE"],
    "VampPrior": [*PLAIN, "--model.prior_model", "VampPrior"],
    "flow prior": [*PLAIN, "--model.prior_model", "RealNVPPrior"],
    "aggregate prior": ["vae/fashion"],
    "discretised logistics": [*PLAIN, *LOGISTICS],
    "VQ-VAE": ["vae/vq"],
    "ladder": ["vae/ladder"],
}
TESTED = ["--likelihood.num_images", "1000", "--likelihood.evaluations", "500"]
COLUMNS = ["variant", "minutes", "images", "-ELBO, nats", "-log P, nats", "bits/dim", "Fréchet distance", "recall"]


def measure(name: str, minutes: float, root: Path) -> dict[str, Any]:
    """Train a variant and test its last state; return what was found, by name."""
    recipe, *options = VARIANTS[name]
    folder = root / name.replace(" ", "-").replace(",", "")
    checkpoint = TimedTraining(recipe, minutes, folder, options).train(0).checkpoint
    tested = folder / "test" / "version_0"
    if not (tested / "likelihood.json").is_file():
        TrainerCLI("test", ["--ckpt_path", str(checkpoint), "--trainer.default_root_dir", str(folder), *TESTED])
    trained = last_record(checkpoint.parents[1] / "evaluation.json")
    found = last_record(tested / "evaluation.json")["metrics"] | last_record(tested / "likelihood.json")["metrics"]
    return found | {"minutes": trained["training_minutes"], "images": trained["images_seen"]}


def last_record(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())[-1]


def row(name: str, found: dict[str, Any]) -> str:
    """Return a line of the table."""
    best = "importance_weighted" if "importance_weighted_nats" in found else "bound"
    cells = [
        f"{found['minutes']:.1f}",
        f"{found['images']:,}",
        *(with_error(found, f"{bound}_nats", 1) for bound in ("bound", "importance_weighted")),
        with_error(found, f"{best}_bits_per_dim", 3),
        f"{found['frechet_distance']:.2f}",
        f"{found['recall']:.2f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def with_error(metrics: dict[str, Any], key: str, digits: int) -> str:
    """Return a mean with its standard error, or that there is none."""
    if key not in metrics:
        return "none"
    return f"{metrics[key]:.{digits}f} ± {metrics[f'{key}_stderr']:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS], default=[*VARIANTS])
    parser.add_argument("--minutes", type=float, default=5.0, help="of training, for each")
    parser.add_argument("--output", type=Path, default=Path("runs/vaes"))
    options = parser.parse_args()
    found = {name: measure(name, options.minutes, options.output) for name in options.variants}
    print(f"\n{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, one seed\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for name, values in found.items():
        print(row(name, values))


if __name__ == "__main__":
    main()
