"""The folder of a run, which stays the same one when the run is resumed."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from lit_generative.data import ImageDataModule
from lit_generative.data.sources import EMBEDDED
from lit_generative.files import read_yaml, replacing, write_json
from lit_generative.recipes import configs_folder

__all__ = ["RunFolder", "as_folder", "folder_below", "named_by_data", "own_name", "run_folder_of", "run_name"]

FAMILIES = ("vae", "gan", "diffusion")  # folders that recipes and their runs are in
NAMING = ("dataset", "config_name", "revision", "streaming")  # options of data that decide what they are called
NO_NAME = "lightning_logs"  # what Lightning calls the folder of runs that were given no name


def run_folder_of(checkpoint: Path) -> Path | None:
    """Return ``version_N`` of ``version_N/checkpoints/x.ckpt``; None of a checkpoint elsewhere."""
    folder = checkpoint.resolve().parent
    return folder.parent if folder.name == "checkpoints" else None


def run_name(run: Path) -> str | None:
    """Return what a run is called: ``vae/fashion`` of ``runs/vae/fashion/version_0``; None if it has no such folder.

    Of how many folders a name is the run's configuration says, which knows the root; where there is none, those of
    recipes, and of recipes on other data, are known by the family.
    """
    if run.parent.name in ("", NO_NAME) or not run.name.startswith("version_"):
        return None
    if (root := _root_of(run)) is not None:
        return run.parent.relative_to(root).as_posix()
    name, above = run.parent.name, run.parent.parent.name
    is_of_data = above and name.startswith(tuple(f"{family}-" for family in FAMILIES))
    return f"{above}/{name}" if above in FAMILIES or is_of_data else name


def _root_of(run: Path) -> Path | None:
    """Return the folder that a run's configuration calls the root, wherever it is by now."""
    try:
        given = Path(read_yaml(run / "config.yaml")["trainer"]["default_root_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return next((parent for parent in list(run.parents)[1:3] if given.name and parent.name == given.name), None)


def named_by_data(name: str, data_name: str | None) -> str:
    """Return what a run is called by its data and its model, such as ``emoji/vae-fashion``.

    Args:
        name: Of the recipe or a former run: ``vae/fashion``, ``mine``, ``cats/vae-fashion``.
        data_name: Of the data; None: those that the recipe is made for, as which it is called.
    """
    above, _, last = name.rpartition("/")
    model = f"{above}-{last}" if above in FAMILIES else last
    if data_name is None:
        family = next((family for family in FAMILIES if model.startswith(f"{family}-")), None)
        return f"{family}/{model.removeprefix(f'{family}-')}" if family else model
    return f"{as_folder(data_name)}/{model}"


def as_folder(name: str) -> str:
    """Return a name as a folder may have it, and that is not taken for something else."""
    kept = re.sub(r"[^\w.+-]+", "-", name).strip("-.")[:60] or "data"
    return f"{kept}-data" if kept in (*FAMILIES, NO_NAME) or kept.startswith("version_") else kept


def own_name(data: Any, recipe: Path | None) -> str | None:
    """Return the name of data that are other than a recipe is made for; None of those.

    Args:
        data: The data module; None: the recipe's own.
        recipe: The recipe's file; None: there is none.
    """
    asked = {} if recipe is None else read_yaml(recipe).get("data") or {}
    options = asked.get("init_args", asked) if isinstance(asked, dict) else {}
    if data is None:
        if "dataset" not in options or asked.get("class_path", "ImageDataModule") != "ImageDataModule":
            return None
        data = ImageDataModule(**{name: options[name] for name in NAMING if name in options})
    if not isinstance(data, ImageDataModule):
        return None if type(data).__module__.startswith("lit_generative.") else type(data).__name__
    is_shipped = recipe is not None and configs_folder() in recipe.resolve().parents
    if data.dataset in EMBEDDED or (is_shipped and data.dataset == options.get("dataset")):
        return None
    return data.name


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
