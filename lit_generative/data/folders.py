"""A folder or an archive of images as tables of ``datasets``: splits and classes are subfolders."""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lit_generative.data.listings import File, Listing, common_parts, list_folder
from lit_generative.data.metadata import Metadata, is_metadata
from lit_generative.data.reading import readable_kinds
from lit_generative.data.split_names import find_split, is_generic, splits_called

__all__ = ["image_tables", "is_image", "list_images"]

IMAGE, LABEL = "image", "label"  # columns


def list_images(folder: Path) -> list[Path]:
    """All images below ``folder``, sorted; other files do not matter.

    Raises:
        ValueError: If something below it cannot be read.
    """
    listing = list_folder(folder)
    if listing.broken:
        raise ValueError(f"{listing.broken[0]}; take it away")
    return [Path(file.address) for file in listing.files if is_image(file)]


def is_image(file: File) -> bool:
    """Whether, by its ending, it is a picture that PIL can read."""
    return file.suffix in _readable_endings()


@functools.cache
def _readable_endings() -> frozenset[str]:
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in readable_kinds())


def image_tables(
    path: Path, listing: Listing, skip_unreadable: bool, split_names: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Make a table for each split.

    Folders that all images have in common do not count. Where the folders below are called ``train``, ``val``,
    ``test`` or the like, or as ``split_names`` says, they are splits. Below these, the first folder names the class. A
    ``metadata.csv`` adds its columns; one called ``label`` takes the place of the classes.

    Args:
        path: The folder or archive, for messages.
        listing: What is in it.
        skip_unreadable: Whether what is no image, or cannot be read, is left out; it is an error otherwise.
        split_names: Folders that the user has called splits.

    Returns:
        For each split its ``datasets.Dataset``, and a sentence on each file that was left out.

    Raises:
        ValueError: If there are no images, or folders of splits and of classes stand side by side.
    """
    metadata = Metadata.read(listing)
    images = [file for file in listing.files if is_image(file)]
    strays = [file for file in listing.files if not is_image(file) and not is_metadata(file)]
    if not images:
        example = f" (there is, for example, {'/'.join(strays[0].parts)})" if strays else ""
        raise ValueError(f"dataset={str(path)!r} holds no images{example}{_first(listing.broken)}")
    problems = listing.broken + [f"{path}/{'/'.join(stray.parts)} is not an image" for stray in strays]
    problems += _unknown_rows(images, metadata)
    if problems and not skip_unreadable:
        others = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}{others}; take it away, or on_error: skip leaves such files out")
    splits = _splits(path, images, split_names)
    names = sorted({name for rows in splits.values() for _, name in rows} - {""})
    return {split: _table(rows, names, metadata) for split, rows in splits.items()}, problems


def _first(problems: Sequence[str]) -> str:
    return f"; {problems[0]}" if problems else ""


def _unknown_rows(images: Sequence[File], metadata: Metadata | None) -> list[str]:
    """Sentences about the rows of a table that are of no image; an image without a row has no values there."""
    if metadata is None:
        return []
    known = {file.parts for file in images}
    unknown = [(parts, row) for parts, row in metadata.rows.items() if parts not in known]
    return [f"{metadata.origins[row]} names {'/'.join(parts)}, which is no image there" for parts, row in unknown]


def _splits(path: Path, images: Sequence[File], named: Collection[str]) -> dict[str, list[tuple[File, str]]]:
    """Sort images into splits, and tell the class of each by its folder: "" if it lies in none."""
    depth = _common_depth(images, named)
    tops = {file.parts[depth] if len(file.parts) > depth + 1 else "" for file in images}
    called = dict.fromkeys(tops - {""}, "") if tops & set(named) else splits_called(tops - {""})
    if called and (others := sorted(tops - called.keys())):
        raise ValueError(_mixture(path, sorted(called), others))
    inner: dict[str, list[tuple[File, tuple[str, ...]]]] = {}
    for file in images:
        split, folders = (file.parts[depth], depth + 1) if called else ("train", depth)
        inner.setdefault(split, []).append((file, file.parts[folders:-1]))
    if not called:
        _refuse_splits_in_classes(path, inner["train"])
    return {split: _classes(rows) for split, rows in inner.items()}


def _common_depth(images: Sequence[File], named: Collection[str]) -> int:
    """How many folders all images have in common, down to one that is called like a split."""
    common = common_parts([file.parts[:-1] for file in images])
    return next((i for i, name in enumerate(common) if name in named or find_split(name)), len(common))


def _mixture(path: Path, splits: Sequence[str], others: Sequence[str]) -> str:
    beside = f"the folder {others[-1]!r}" if others[-1] else "images"
    return (
        f"dataset={str(path)!r} has the folder {splits[0]!r}, which is called like a split, beside {beside}, which is "
        "not: rename it if it is a class, take the other away if it is not to be read, or name the splits "
        "(train_split, val_split, test_split)"
    )


def _refuse_splits_in_classes(path: Path, rows: Sequence[tuple[File, tuple[str, ...]]]) -> None:
    for file, folders in rows:
        if split := next(filter(find_split, folders), None):
            raise ValueError(
                f"dataset={str(path)!r} has {'/'.join(file.parts)}, where {split!r}, which is called like a split, "
                f"lies in another folder; let the splits be on top ({split}/{folders[0]}), or rename it"
            )


def _classes(rows: Sequence[tuple[File, tuple[str, ...]]]) -> list[tuple[File, str]]:
    """Name each image's class; a folder such as ``images``, in which a whole split lies, is none."""
    common = common_parts([folders for _, folders in rows])
    skipped = next((i for i, name in enumerate(common) if not is_generic(name)), len(common))
    return [(file, folders[skipped] if len(folders) > skipped else "") for file, folders in rows]


def _table(rows: Sequence[tuple[File, str]], names: Sequence[str], metadata: Metadata | None) -> Any:
    import datasets

    more = None if metadata is None else datasets.Dataset(metadata.columns([file.parts for file, _ in rows]))
    features: dict[str, Any] = {IMAGE: datasets.Image(decode=False)}
    columns: dict[str, list] = {IMAGE: [{"path": file.address, "bytes": None} for file, _ in rows]}
    if len(names) > 1 and not (more and LABEL in more.column_names):
        features[LABEL] = datasets.ClassLabel(names=list(names))
        columns[LABEL] = [name or None for _, name in rows]
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return datasets.concatenate_datasets([table, more], axis=1) if more else table
