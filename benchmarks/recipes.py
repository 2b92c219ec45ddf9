"""Train recipes with several seeds, test their last checkpoints, and print the README's table.

Usage: python benchmarks/recipes.py [--recipes gan/fashion vae/mlp] [--seeds 3] [--output runs/recipes]
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

README = ["gan/fashion-conditional", "gan/fashion", "vae/fashion", "vae/mlp"]  # those of its table


def measure(recipe: str, seed: int, output: Path) -> dict[str, Any]:
    """Run ``fit`` and ``test`` in processes of their own; return what they found, and the minutes of ``fit``."""
    command = [sys.executable, "-c", "from lit_generative.cli import script; script()"]
    quiet = ["--trainer.enable_progress_bar", "false"]
    root = output / f"seed_{seed}"
    before = set((root / recipe).glob("version_*"))
    start = time.perf_counter()
    options = ["--config", recipe, "--seed_everything", str(seed), "--trainer.default_root_dir", str(root)]
    subprocess.run([*command, "fit", *options, *quiet], check=True, stdout=subprocess.DEVNULL)
    minutes = (time.perf_counter() - start) / 60
    (run,) = set((root / recipe).glob("version_*")) - before
    verdict = json.loads((run / "evaluation.json").read_text())[-1].get("health", {}).get("verdict")
    test = ["test", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    subprocess.run([*command, *test, *quiet], check=True, stdout=subprocess.DEVNULL)
    record = json.loads((run / "test" / "version_0" / "evaluation.json").read_text())[-1]
    floor = record["protocol"]["floor"]["frechet_distance"]
    return {"minutes": minutes, "floor": floor, "verdict": verdict, **record["losses"], **record["metrics"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=README)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("runs/recipes"))
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {options.seeds} seeds\n"
    )
    names = ["minutes", "test/nelbo", "frechet_distance", "recall", "class_accuracy", "modes", "high_quality", "floor"]
    print(f"| recipe | {' | '.join(names)} | verdicts |\n|{'---|' * (len(names) + 2)}")
    for recipe in options.recipes:
        found = [measure(recipe, seed, options.output) for seed in range(options.seeds)]
        values = [[run[name] for run in found if name in run] for name in names]
        cells = [f"{statistics.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" if v else "" for v in values]
        verdicts = ", ".join(sorted({run["verdict"] for run in found if run["verdict"]}))
        print(f"| {recipe} | {' | '.join(cells)} | {verdicts} |", flush=True)


if __name__ == "__main__":
    main()
