"""The folder of a run that goes on: nothing of it is lost, and nothing is there twice."""

import csv
import json
from pathlib import Path

import pytest

from lit_generative.files import write_json
from lit_generative.training.folder import RunFolder, folder_below, run_name


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was killed while it wrote its fourth row."""
    logger = RunFolder(str(tmp_path), "vae/fashion")
    for step in range(3):
        logger.log_metrics({"loss": 3.0 - step, "images_seen": 10.0 * (step + 1)}, step)
        logger.save()
    folder = Path(logger.log_dir)
    with (folder / "metrics.csv").open("a") as file:
        file.write("40")
    write_json(folder / "evaluation.json", [{"images_seen": images} for images in (10, 20, 30)])
    return folder


def test_a_run_goes_on_behind_its_checkpoint(tmp_path: Path, run: Path) -> None:
    logger = RunFolder(str(tmp_path), "vae/fashion", version=0, images_seen=20)
    assert Path(logger.log_dir) == run
    logger.take_over()
    logger.log_metrics({"loss": 1.0, "images_seen": 30.0, "another": 5.0}, 2)
    logger.save()
    assert [float(row["images_seen"]) for row in rows(run)] == [10, 20, 30]
    assert [row["another"] for row in rows(run)] == ["", "", "5.0"]
    assert [record["images_seen"] for record in json.loads((run / "evaluation.json").read_text())] == [10, 20]


def test_a_run_that_is_refused_leaves_everything(tmp_path: Path, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.iterdir()}
    logger = RunFolder(str(tmp_path), "vae/fashion", version=0, images_seen=20)
    _ = logger.experiment
    logger.finalize("failed")
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_run_that_had_ended_adds_its_last_evaluation(tmp_path: Path, run: Path) -> None:
    logger = RunFolder(str(tmp_path), "vae/fashion", version=0, images_seen=30)
    logger.log_metrics({"test/recall": 0.5, "images_seen": 30.0}, 3)
    logger.finalize("success")
    assert [row["loss"] for row in rows(run)][:3] == ["3.0", "2.0", "1.0"]
    assert rows(run)[-1]["test/recall"] == "0.5"


@pytest.mark.parametrize(
    ("folder", "name", "below"),
    [
        ("runs/vae/fashion/version_0", "vae/fashion", "vae/fashion/version_0"),
        ("runs/mine/version_12", "mine", "mine/version_12"),
        ("runs/lightning_logs/version_0", None, "lightning_logs/version_0"),
        ("runs/fashion", None, "fashion"),
        ("elsewhere/mine/version_1", "mine", None),
    ],
)
def test_names_of_runs(tmp_path: Path, folder: str, name: str | None, below: str | None) -> None:
    assert run_name(tmp_path / folder) == name
    assert folder_below(tmp_path.resolve() / folder, tmp_path / "runs") == below
