"""A folder or zip file of images, one subfolder a class, as tables of ``datasets``."""

import functools
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from PIL import Image

__all__ = ["images_table", "is_image", "list_files", "list_zip"]

_BY_SYSTEMS = {"thumbs.db", "desktop.ini", "__macosx"}  # files that operating systems leave in folders of images
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def list_files(folder: Path) -> list[Path]:
    """All files below ``folder``, sorted, without hidden ones and those that operating systems make."""
    found = []
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if _is_wanted(name)]
        found += [Path(root, name) for name in names if _is_wanted(name)]
    return sorted(found)


def list_zip(archive: Path) -> list[PurePath]:
    """All members of a zip file, as :func:`list_files` lists those of a folder.

    Raises:
        ValueError: If it is no zip file.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [PurePosixPath(member.filename) for member in opened.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{archive} cannot be read as a zip file: {error}") from error
    return sorted(member for member in members if all(map(_is_wanted, member.parts)))


def _is_wanted(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _BY_SYSTEMS


def is_image(file: PurePath) -> bool:
    """Whether, by its ending, PIL can read it."""
    return file.suffix.lower() in _readable_endings()


@functools.cache
def _readable_endings() -> frozenset[str]:
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def images_table(images: Sequence[tuple[str, tuple[str, ...]]]) -> dict[str, Any]:
    """Make a table of addresses and labels for each split.

    Where the top folders are called ``train`` and, perhaps, ``val``, ``test`` or the like, they are splits. Below that,
    the first subfolder names the class; images without any, or all in one, have no labels.

    Args:
        images: Each image's address and the parts of its path below the folder, from which split and class are read.
    """
    tops = {parts[0].lower() if len(parts) > 1 else "" for _, parts in images}
    has_splits = tops <= set(_SPLITS) and "train" in map(_SPLITS.get, tops)
    splits: dict[str, list[tuple[str, str]]] = {}  # address and class
    for address, parts in images:
        split, inner = (_SPLITS[parts[0].lower()], parts[1:]) if has_splits else ("train", parts)
        splits.setdefault(split, []).append((address, inner[0] if len(inner) > 1 else ""))
    names = sorted({name for rows in splits.values() for _, name in rows})
    is_labelled = len(names) > 1 and "" not in names
    return {split: _table(rows, names if is_labelled else None) for split, rows in splits.items()}


def _table(rows: Sequence[tuple[str, str]], names: list[str] | None) -> Any:
    import datasets

    features: dict[str, Any] = {"image": datasets.Image(decode=False)}
    columns: dict[str, list] = {"image": [{"path": address, "bytes": None} for address, _ in rows]}
    if names:
        features["label"] = datasets.ClassLabel(names=names)
        columns["label"] = [name for _, name in rows]
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))
