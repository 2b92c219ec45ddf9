"""What takes part in a comparison: checkpoints and folders of images, and what they are called."""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from lit_generative.checkpoints import read_checkpoint
from lit_generative.comparison.folder_model import ImagesOf
from lit_generative.core import GenerativeModule
from lit_generative.description import find
from lit_generative.files import file_digest
from lit_generative.finite import check_finite_weights
from lit_generative.training.folder import run_folder_of, run_name

__all__ = ["Entry", "find_entries"]

_Taken = list[tuple[dict[str, Any], list[int | None]]]  # models, and their seeds


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model that can be loaded, or a folder of images.

    Attributes:
        name: What it is called in reports; entries of one name differ in their seed alone.
        source: The checkpoint or the folder.
        seed: The training's; None: not known.
        data: The description of the data module it was trained with; None: not known.
    """

    name: str
    source: Path
    seed: int | None = None
    data: dict[str, Any] | None = None

    def load(self, image_shape: tuple[int, int, int] | None = None) -> GenerativeModule:
        """Return the model, on the CPU.

        Args:
            image_shape: Channels, height and width of the images that a folder is to have, which needs them.

        Raises:
            FloatingPointError: If its weights are not finite.
            ImportError: If a class of the checkpoint is not imported.
            ValueError: If the checkpoint is damaged, or the folder's images are of another size.
        """
        if self.source.is_dir():
            assert image_shape is not None
            return ImagesOf.read(self.source, image_shape)
        model = GenerativeModule.load_from_checkpoint(self.source, map_location="cpu")
        check_finite_weights(model, self.source)
        return model

    def digest(self) -> str:
        """Return the SHA-256 of the checkpoint's content, or of the names, sizes and dates in the folder."""
        if self.source.is_file():
            return file_digest(self.source)
        files = sorted(file for file in self.source.rglob("*") if file.is_file())
        listing = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()


def find_entries(
    sources: Sequence[str | Path], names: Sequence[str] | None = None, cut_short: Collection[Path] = ()
) -> list[Entry]:
    """Look at checkpoints and folders, and name them.

    A checkpoint is called as the folder of its run, with the family's if it is in one: ``vae/fashion`` is that of
    ``runs/vae/fashion/version_0/checkpoints/last.ckpt``. Where there is no such folder, it is the model's class; a
    folder of images has its own name. Checkpoints of one name whose classes, arguments, data, precision, kind of
    weights (averaged or not) and length (training images, or minutes) are equal too, and whose seeds differ, are seeds
    of one model and keep the name; all others of that name get a number, as in ``vae/fashion (2)``.

    Args:
        sources: Files and folders.
        names: One for each, instead of those found.
        cut_short: Those whose training ended before its time, so that their number of images does not count.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If a model's class is not imported.
        ValueError: If a checkpoint is damaged or given twice, or the number of names is another one.
    """
    paths = [Path(source) for source in sources]
    if names is not None and len(names) != len(paths):
        raise ValueError(f"names has {len(names)} names for {len(paths)} models; give one for each, or none")
    twice = [path for i, path in enumerate(paths) if path.resolve() in {other.resolve() for other in paths[:i]}]
    if twice:
        raise ValueError(f"{twice[0]} is given twice; name it once")
    found = [_look(path, path in cut_short) for path in paths]
    given = names or [entry.name for entry, _ in found]
    taken: dict[str, _Taken] = {}  # by name
    return [
        dataclasses.replace(entry, name=_distinguish(name, entry.seed, model, taken.setdefault(name, [])))
        for name, (entry, model) in zip(given, found, strict=True)
    ]


def _look(path: Path, is_cut_short: bool) -> tuple[Entry, dict[str, Any]]:
    """Return an entry, and what is equal for seeds of one model; what is None is not compared."""
    if path.is_dir():
        return Entry(path.resolve().name, path), {"folder": path.resolve()}
    checkpoint = read_checkpoint(path, map_location="meta")
    saved, budget = checkpoint["lit_generative"], checkpoint.get("callbacks", {}).get("Budget", {})
    cls = find(saved["model"]["class_path"])
    data = saved.get("data")
    trained_on = data and data | {"init_args": {k: v for k, v in data["init_args"].items() if k != "seed"}}
    state = saved["state"]
    entry = Entry(_name(path) or cls.__name__, path, state.get("noise_seed"), data)
    same = {name: state.get(name) for name in ("images_seen", "precision", "weights")}
    if "minutes" in budget.get("limit", {}) and budget["share"] >= 1:  # seeds of one model differ in their pace
        same["images_seen"] = f"those of {budget['limit']['minutes']} minutes"
    if is_cut_short:
        same["images_seen"] = None
    return entry, same | {"model": saved["model"], "data": trained_on or {}}


def _name(path: Path) -> str | None:
    """Return the name of the run that a checkpoint is of; None if it is in no run's folder."""
    run = run_folder_of(path)
    return None if run is None else run_name(run)


def _distinguish(name: str, seed: int | None, model: dict[str, Any], taken: _Taken) -> str:
    """Return the name with the number of its model among those of the name, which it is added to."""
    fits = [_are_alike(other, model) and seed is not None and seed not in seeds for other, seeds in taken]
    number = fits.index(True) if any(fits) else len(taken)
    if number == len(taken):
        taken.append((model, []))
    taken[number][1].append(seed)
    return name if number == 0 else f"{name} ({number + 1})"


def _are_alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        one[name] == other[name] or None in (one[name], other[name]) for name in one
    )
