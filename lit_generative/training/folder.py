"""The folder of a run, which stays the same one when the run is resumed."""

import csv
import json
import math
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_generative.files import replacing, write_json

__all__ = ["RunFolder", "folder_below", "run_folder_of", "run_name"]

FAMILIES = ("vae", "gan", "diffusion")  # folders that recipes and their runs are in
NO_NAME = "lightning_logs"  # what Lightning calls the folder of runs that were given no name


def run_folder_of(checkpoint: Path) -> Path | None:
    """Return ``version_N`` of ``version_N/checkpoints/x.ckpt``; None of a checkpoint elsewhere."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == "checkpoints" else None


def run_name(run: Path) -> str | None:
    """Return what a run is called: ``vae/fashion`` of ``runs/vae/fashion/version_0``; None if it has no such folder."""
    if run.parent.name in ("", NO_NAME) or not run.name.startswith("version_"):
        return None
    name, above = run.parent.name, run.parent.parent.name
    return f"{above}/{name}" if above in FAMILIES else name


def folder_below(run: Path, root: Path) -> str | None:
    """Return the name and version of a run below ``root``, such as ``vae/fashion/version_0``; None if it is not."""
    root = root.resolve()
    return run.relative_to(root).as_posix() if root in run.parents else None


class RunFolder(CSVLogger):
    """The folder ``ROOT/NAME/version_N`` of a run, with ``metrics.csv`` in it.

    A run that goes on does so in its own folder. What was written there behind its checkpoint is dropped when training
    starts (see :meth:`take_over`), since those steps are taken again; Lightning's logger would delete all of it.

    Args:
        root: The folder of all runs.
        name: What the run is called.
        version: Of the run that goes on; None: a new run, with the next number.
        images_seen: How far that run's checkpoint is.
    """

    def __init__(self, root: str, name: str, version: int | None = None, images_seen: int = 0) -> None:
        super().__init__(root, name, version)
        self.goes_on = version is not None
        self.images_seen = images_seen

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes ``metrics.csv``."""
        if self._experiment is None and self.goes_on:
            self._experiment = _Continued(self.log_dir)
        return super().experiment

    @rank_zero_only
    def take_over(self) -> None:
        """Drop what a run that goes on has written behind its checkpoint; until then it may still be refused."""
        if isinstance(self.experiment, _Continued):
            self.experiment.take_over(self.images_seen)


class _Continued(ExperimentWriter):
    """Adds rows to the metrics of a run that goes on."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.metrics_keys, _ = _read(Path(self.metrics_file_path))

    def _check_log_dir_exists(self) -> None:
        """Leave what is there."""

    def take_over(self, images_seen: int) -> None:
        """Keep what was written up to so many images; perhaps the rest ends in half a row, which a kill has left."""
        if (path := Path(self.log_dir) / "evaluation.json").is_file():
            records = json.loads(path.read_text())
            write_json(path, [record for record in records if record["images_seen"] <= images_seen])
        if (path := Path(self.metrics_file_path)).is_file():
            header, rows = _read(path)
            _write(path, header, [row for row in rows if _images_seen(row) <= images_seen])

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        _write(path, fieldnames, _read(path)[1])


def _images_seen(row: dict[str, Any]) -> float:
    try:
        return float(row["images_seen"])
    except (KeyError, TypeError, ValueError):
        return math.inf


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns and the rows of a table; none of a file that is not there."""
    if not path.is_file():
        return [], []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return list(reader.fieldnames or []), rows


def _write(path: Path, header: list[str], rows: list[dict[str, Any]]) -> None:
    with replacing(path) as scratch, scratch.open("w", newline="") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows(rows)
