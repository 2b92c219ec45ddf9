"""Which columns of a table hold the images and the labels, and what the classes are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # importing datasets takes a second; only those who open data pay for it
    import datasets

__all__ = ["Classes", "find_image_column", "find_label_column", "read_labels"]

AUTO = "auto"
_LABEL_NAMES = ("label", "cls")  # what plain integer labels are called on the hub and in WebDataset archives


def find_image_column(features: "datasets.Features", wanted: str) -> str:
    """Name the column of images: ``wanted``, or for ``auto`` the only one whose type says so.

    Raises:
        ValueError: If there is no such column or several; the message lists all columns and their types.
    """
    import datasets

    if wanted != AUTO:
        return _check(features, wanted, "image_column")
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    candidates = typed or [name for name, feature in features.items() if _may_hold_images(feature)]
    if len(candidates) != 1:
        found = f"{len(candidates)} columns may hold the images" if candidates else "no column holds images"
        raise ValueError(f"{found}; name it by image_column. {_listing(features)}")
    return candidates[0]


def find_label_column(features: "datasets.Features", wanted: str | None) -> str | None:
    """Name the column of labels: ``wanted``, or for ``auto`` the only ClassLabel, else integers called ``label``.

    Returns:
        None if ``wanted`` is None, or if it is ``auto`` and no column looks like labels.

    Raises:
        ValueError: If there is no such column, or several for ``auto``; the message lists columns and types.
    """
    import datasets

    if wanted is None:
        return None
    if wanted != AUTO:
        return _check(features, wanted, "label_column")
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    candidates = typed or [name for name in _LABEL_NAMES if _dtype(features.get(name)).startswith(("int", "uint"))]
    if len(candidates) > 1:
        message = f"{len(candidates)} columns may hold the labels; name one by label_column, or give null for no labels"
        raise ValueError(f"{message}. {_listing(features)}")
    return candidates[0] if candidates else None


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Args:
        names: What the classes are called; a label is a position in it.
        values: What stands for each class in the label column, or None if that is the label itself (ClassLabel).
    """

    names: tuple[str, ...]
    values: np.ndarray | None = None

    @classmethod
    def of(cls, table: "datasets.Dataset", column: str) -> "Classes":
        """The classes that the column's type names, or, of integers, strings or booleans, its distinct values in order.

        Raises:
            ValueError: If the column holds something else, or if labels are missing.
        """
        feature = table.features[column]
        if names := getattr(feature, "names", None):
            return cls(tuple(names))
        if not _dtype(feature).startswith(("int", "uint", "string", "large_string", "bool")):
            raise ValueError(
                f"label_column={column!r} is of the type {_dtype(feature) or feature}; "
                f"labels are ClassLabel, integers, strings or booleans. {_listing(table.features)}"
            )
        values = np.unique(_values(table, column))
        return cls(tuple(map(str, values.tolist())), values)

    def encode(self, values: np.ndarray, origin: str) -> np.ndarray:
        """Turn the ``values`` of a label column into labels (N,), int64, from 0 to the number of classes less one.

        Raises:
            ValueError: If a value belongs to no class; ``origin`` says where it was found.
        """
        if self.values is None:
            labels, is_known = values, (values >= 0) & (values < len(self.names))
        else:
            labels = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
            is_known = self.values[labels] == values
        if not is_known.all():
            bad = values[~is_known][0].item()
            raise ValueError(
                f"the label {bad!r} in the split {origin!r} is none of the {len(self.names)} classes "
                "(-1 often stands for withheld labels: name another split, or give label_column: null)"
            )
        return labels.astype(np.int64)


def read_labels(table: "datasets.Dataset", column: str, classes: Classes, origin: str) -> np.ndarray:
    """Read a whole label column as labels (N,), int64. Raises as :meth:`Classes.encode` does."""
    return classes.encode(_values(table, column), origin)


def _values(table: "datasets.Dataset", column: str) -> np.ndarray:
    values: Sequence[Any] = table[column][:]
    if any(value is None for value in values):
        raise ValueError(f"label_column={column!r} has rows without a value; fill them or give label_column: null")
    return np.asarray(values)


def _may_hold_images(feature: Any) -> bool:
    """Parquet that was not written by ``datasets`` has bytes, or bytes with a path, where it means images."""
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return _dtype(feature) in ("binary", "large_binary")


def _dtype(feature: Any) -> str:
    return getattr(feature, "dtype", None) or ""


def _check(features: "datasets.Features", name: str, argument: str) -> str:
    if name not in features:
        raise ValueError(f"{argument}={name!r} is no column. {_listing(features)}")
    return name


def _listing(features: "datasets.Features") -> str:
    import datasets

    kinds = {name: f.dtype if isinstance(f, datasets.Value) else type(f).__name__ for name, f in features.items()}
    return "The columns: " + ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
