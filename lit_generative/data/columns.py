"""Which columns of a table hold the images and the labels, and what the classes are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_generative.data.pixel_lists import depth_and_type

if TYPE_CHECKING:  # importing datasets takes a second; only those who open data pay for it
    import datasets

__all__ = ["Classes", "find_image_column", "find_label_column", "read_labels"]

AUTO = "auto"
_LABEL_NAMES = (  # what plain labels are called on the hub and in WebDataset archives; the others if there are none
    ("label", "cls"),
    ("labels", "class", "class_name", "class_label", "category", "target"),
)
_LABEL_TYPES = ("int", "uint", "string", "large_string", "bool", "float")
_IMAGE_NAMES = ("image", "images", "img", "pixels", "pixel_values")  # where lists of numbers are taken for images
_LISTED = 12  # columns that a message names
_MANY = 1000  # classes of which at least half would have a single image are none


def find_image_column(features: "datasets.Features", wanted: str) -> str:
    """Name the column of images: ``wanted``, or for ``auto`` the only one whose type says so.

    Raises:
        ValueError: If there is no such column or several; the message lists all columns and their types.
    """
    import datasets

    if wanted != AUTO:
        _check(features, wanted, "image_column")
        feature = features[wanted]
        if not (_is_encoded(feature) or depth_and_type(feature)[0] or _dtype(feature) in ("string", "large_string")):
            raise ValueError(f"image_column={wanted!r} holds no images; name another. {_listing(features)}")
        return wanted
    typed = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    candidates = typed or [name for name, feature in features.items() if _is_encoded(feature)]
    candidates = candidates or [name for name, feature in features.items() if _may_be_pixels(name, feature)]
    if len(candidates) != 1:
        found = f"{len(candidates)} columns may hold the images" if candidates else "no column holds images"
        raise ValueError(f"image_column='auto': {found}; name one by image_column. {_listing(features)}")
    return candidates[0]


def find_label_column(features: "datasets.Features", wanted: str | None) -> str | None:
    """Name the column of labels: ``wanted``, or for ``auto`` the only ClassLabel, else a plain one called ``label``.

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
    plain = [[n for n in names if _dtype(features.get(n)).startswith(_LABEL_TYPES)] for names in _LABEL_NAMES]
    candidates = typed or plain[0] or plain[1]
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
        """The classes that the column's type names, or, of a plain one, its distinct values in order.

        Plain are whole numbers (of any type: 2.0 is class "2"), strings and booleans.

        Raises:
            ValueError: If the column holds something else, if labels are missing, or if there are so many of them that
                they are no classes.
        """
        feature = table.features[column]
        if names := getattr(feature, "names", None):
            return cls(tuple(names))
        if not _dtype(feature).startswith(_LABEL_TYPES):
            raise ValueError(
                f"label_column={column!r} is of the type {_dtype(feature) or feature}; "
                f"labels are ClassLabel, integers, strings or booleans. {_listing(table.features)}"
            )
        values = np.unique(_values(table, column))
        if len(values) > max(_MANY, len(table) / 2):
            raise ValueError(
                f"label_column={column!r} has {len(values):,} values in {len(table):,} rows, which are hardly classes; "
                "name another column, or give label_column: null"
            )
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
    if (missing := next((i for i, value in enumerate(values) if value is None or value != value), None)) is not None:
        raise ValueError(
            f"label_column={column!r} has rows without a value, first {_describe_row(table, missing)}; fill them "
            "(a class is a folder, or a row of metadata.csv), or give label_column: null"
        )
    array = np.asarray(values)
    if array.dtype.kind != "f":
        return array
    if not (array == np.rint(array)).all():
        bad = array[array != np.rint(array)][0]
        raise ValueError(
            f"label_column={column!r} has the value {bad:g}, which is no class; name another column, or give "
            "label_column: null"
        )
    return array.astype(np.int64)


def _describe_row(table: "datasets.Dataset", row: int) -> str:
    """Name a row: its image's file, if it has one."""
    import datasets

    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            cell = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))[row][column]
            if cell and cell["path"]:
                return cell["path"]
    return f"row {row:,}"


def _is_encoded(feature: Any) -> bool:
    """Parquet that was not written by ``datasets`` has bytes, or bytes with a path, where it means images."""
    import datasets

    if isinstance(feature, datasets.Image):
        return True
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return _dtype(feature) in ("binary", "large_binary")


def _may_be_pixels(name: str, feature: Any) -> bool:
    """Lists of lists of numbers, or of bytes, are images; one of other numbers is, if it is called so."""
    depth, kind = depth_and_type(feature)
    return depth in (2, 3) or (depth == 1 and (kind == "uint8" or name.lower() in _IMAGE_NAMES))


def _dtype(feature: Any) -> str:
    return getattr(feature, "dtype", None) or ""


def _check(features: "datasets.Features", name: str, argument: str) -> str:
    if name not in features:
        raise ValueError(f"{argument}={name!r} is no column. {_listing(features)}")
    return name


def _listing(features: "datasets.Features") -> str:
    import datasets

    kinds = {name: f.dtype if isinstance(f, datasets.Value) else type(f).__name__ for name, f in features.items()}
    named = [f"{name} ({kind})" for name, kind in kinds.items()]
    others = f" and {len(named) - _LISTED} others" if len(named) > _LISTED else ""
    return f"The columns: {', '.join(named[:_LISTED])}{others}"
