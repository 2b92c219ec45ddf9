"""The second ``--config`` files: each goes with every recipe, and does what its first line says."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_generative.cli import main
from lit_generative.recipes import Recipe
from lit_generative.recipes import recipes as shipped_recipes

RECIPES = [recipe.name for recipe in shipped_recipes() if not recipe.name.startswith("extras/")]
EXTRAS = [recipe for recipe in shipped_recipes() if recipe.name.startswith("extras/")]


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "path", sys.path.copy())


def print_config(capsys: pytest.CaptureFixture[str], *names: str) -> dict[str, Any]:
    """Return the configuration that ``fit`` would run with."""
    options = [option for name in names for option in ("--config", name)]
    assert main(["fit", *options, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def test_the_four_extras_ship() -> None:
    assert [extra.name for extra in EXTRAS] == ["extras/debug", "extras/gpu", "extras/multinode", "extras/wandb"]


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.name)
def test_an_extra_is_short_and_says_what_it_is_for(extra: Recipe) -> None:
    lines = extra.path.read_text().splitlines()
    assert len(lines) <= 15
    assert lines[0] == f"# {extra.summary}"
    assert extra.summary


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_extras_go_with_every_recipe(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    alone = print_config(capsys, recipe)
    together = print_config(capsys, recipe, *(extra.name for extra in EXTRAS))
    for extra in EXTRAS:
        for name, value in yaml.safe_load(extra.path.read_text())["trainer"].items():
            if name != "logger":
                assert together["trainer"][name] == value
    assert together["trainer"]["logger"]["class_path"] == "lit_generative.loggers.WandbLogger"
    assert together["model"] == alone["model"], "an extra leaves the experiment as it is"
    assert together["data"] == alone["data"]


def test_wandb_has_options_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "vae/mlp", "--config", "extras/wandb", "--trainer.logger.projct", "mine"]) == 2
    error = capsys.readouterr().err
    assert "projct" in error
    assert "Traceback" not in error


def test_debug_runs_every_part_within_a_few_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--trainer.default_root_dir", str(tmp_path), "--trainer.accelerator", "cpu", "--data.subset", "600"]
    assert main(["fit", "--config", "vae/mlp", "--config", "extras/debug", *options]) == 0
    folder = tmp_path / "vae/mlp/version_0"
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    seen = [float(row["images_seen"]) for row in rows if row["train/loss"]]
    assert seen == [128.0 * n for n in range(1, 7)]  # every batch of 2 epochs is logged
    assert sum(bool(row["val/loss"]) for row in rows) == 2
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (folder / "evaluation.json").is_file()
    assert "frechet_distance" in capsys.readouterr().out
