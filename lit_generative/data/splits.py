"""What becomes of the splits that a source has: training, validation and test images, always the same ones."""

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lit_generative.data.split_names import find_split, splits_called

if TYPE_CHECKING:
    import datasets

__all__ = ["EMPTY", "ON_VALIDATION", "Part", "Share", "place_by_content", "shares", "spread", "spread_evenly"]

EMPTY: dict[str, Any] = {"bytes": b"", "path": None}
"""What stands for a missing image; it cannot be read."""

ON_VALIDATION = "by which checkpoints and settings may have been chosen"
"""What has to be said of validation images that stand in for test images."""


@dataclass(frozen=True)
class Share:
    """Where a split's images come from: of the split ``origin`` of the source those placed in [``first``, ``last``).

    Every image has a place in [0, 1), which depends on neither seed nor process.
    """

    origin: str
    first: float = 0.0
    last: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Whether it is all of ``origin``."""
        return self.first == 0 and self.last == 1

    def __str__(self) -> str:
        return (
            self.origin if self.is_whole else f"{100 * (self.last - self.first):.4g}% of {self.origin}, always the same"
        )


def shares(
    available: Collection[str], train: str | None, val: str | None, test: str | None, val_fraction: float
) -> dict[str, Share]:
    """Decide what ``train``, ``val`` and ``test`` are made of.

    A split is the one that is named, else the one that :func:`~.split_names.find_split` knows. Missing validation
    images are a fixed share of the training split. Missing test images are the validation split, if the source has one,
    else another fixed share.

    Args:
        available: The names of the source's splits.
        train: The name of its training split, or None to find it.
        val: The same for validation.
        test: The same for test.
        val_fraction: The size of a share relative to the training split.

    Raises:
        ValueError: If a split does not exist or the training split is used for evaluation.
    """
    train = _find(available, "train", train)
    if train is None and len(available) == 1 and not splits_called(available):
        train = next(iter(available))
    if train is None:
        raise ValueError(f"train_split=None: no split is called 'train'; give one of {', '.join(available)}")
    others = [name for name in available if name != train]
    val, test = (_find(available if name else others, split, name) for split, name in (("val", val), ("test", test)))
    for argument, name in {"val_split": val, "test_split": test}.items():
        if name == train:
            raise ValueError(f"{argument}={name!r} is the training split; leave it out to set a share of that aside")
    num_shares = 0
    found = {}
    for split, name in {"val": val, "test": test or val}.items():
        found[split] = Share(name) if name else Share(train, num_shares * val_fraction, (num_shares + 1) * val_fraction)
        num_shares += name is None
    return {"train": Share(train, num_shares * val_fraction), **found}


def _find(available: Collection[str], split: str, wanted: str | None) -> str | None:
    usual = find_split(wanted or split)
    if (wanted or usual) in available:
        return wanted or usual
    found = [name for name, use in splits_called(available).items() if use == usual]
    if len(found) > 1:
        raise ValueError(
            f"the splits {' and '.join(map(repr, found))} may both be for {usual}; name one by {split}_split"
        )
    if wanted is not None and not found:
        raise ValueError(f"{split}_split={wanted!r} does not exist; the splits are: {', '.join(available)}")
    return found[0] if found else None


def spread(labels: np.ndarray | None, n: int) -> np.ndarray:
    """Order ``n`` images at random, always in the same way, so that any stretch has the classes in their proportions.

    Args:
        labels: Classes (N,), or None.
        n: The number of images.

    Returns:
        Their positions (N,).
    """
    order, place, size = _shuffle_classes(labels, n)
    return order[np.argsort(place / size, kind="stable")]


def spread_evenly(labels: np.ndarray | None, n: int) -> np.ndarray:
    """Order ``n`` images as :func:`spread` does, but beginning with equally many of each class while they last."""
    order, place, _ = _shuffle_classes(labels, n)
    return order[np.argsort(place, kind="stable")]


def _shuffle_classes(labels: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A fixed random order, and for each image in it its place within its class and the size of that class."""
    order = np.random.default_rng(0).permutation(n)
    classes = np.zeros(n, np.int64) if labels is None else labels[order]
    sizes = np.bincount(classes)
    place = np.empty(n, np.int64)
    place[np.argsort(classes, kind="stable")] = np.concatenate([np.arange(size) for size in sizes])
    return order, place, sizes[classes]


def place_by_content(row: dict[str, Any]) -> float:
    """An encoded image's place in [0, 1) by its checksum, for streams, which know neither number nor order."""
    return zlib.crc32(row["bytes"] or str(row["path"]).encode()) / 2**32


@dataclass(frozen=True)
class Part:
    """The images of one split: some rows of a table.

    Args:
        table: Has the encoded images in the only column that is read.
        column: That column.
        rows: Which rows, (N,).
        labels: Their labels (N,), int64, or None.
        origin: The source's name of the split, for messages.
        conditions: Further columns by name, (N, ...).
    """

    table: "datasets.Dataset"
    column: str
    rows: np.ndarray
    labels: np.ndarray | None
    origin: str
    conditions: dict[str, np.ndarray] = field(default_factory=dict)
    num_skipped: ClassVar[int] = 0  # so far: nothing was read

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, share: Share) -> "Part":
        """The part's share.

        Raises:
            ValueError: If no image is left.
        """
        if share.is_whole:
            return self
        first, last = (round(end * len(self)) for end in (share.first, share.last))
        if first == last:
            images = "1 image is" if len(self) == 1 else f"{len(self):,} images are"
            larger = "" if len(self) == 1 else ", or raise val_fraction"
            raise ValueError(
                f"{self.origin!r}: {images} too few to set {share} aside; give at least "
                f"{ceil(1 / (share.last - share.first))} images{larger}. A model of a handful can only copy them"
            )
        return self.only(np.sort(spread(self.labels, len(self))[first:last]))

    def only(self, index: np.ndarray) -> "Part":
        """The images at the positions ``index`` (M,)."""
        labels = None if self.labels is None else self.labels[index]
        conditions = {name: values[index] for name, values in self.conditions.items()}
        return Part(self.table, self.column, self.rows[index], labels, self.origin, conditions)

    def encoded(self, index: Sequence[int] | np.ndarray) -> list[tuple[dict[str, Any], str]]:
        """The encoded images at the positions ``index``, each with a name for messages."""
        rows = self.rows[index].tolist()
        images = self.table[rows][self.column]
        return [(image or EMPTY, f"row {row:,} of {self.origin}") for image, row in zip(images, rows, strict=True)]
