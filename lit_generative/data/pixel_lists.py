"""Columns that hold images as lists of numbers, not as files: 28 lists of 28 bytes, 784 bytes, 3 x 32 x 32 …"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_generative.data.gray_levels import Levels, to_bytes
from lit_generative.data.splits import EMPTY

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

__all__ = ["PixelLists", "depth_and_type"]

_LOOKED_AT_IN_STREAM = 64


def depth_and_type(feature: Any) -> tuple[int, str]:
    """How many lists deep the numbers of a column lie, and their type; (0, "") where it has no lists of numbers."""
    import datasets

    if isinstance(feature, datasets.Array2D | datasets.Array3D):
        return len(feature.shape), feature.dtype
    depth = 0
    while isinstance(feature, datasets.List | datasets.LargeList):
        feature, depth = feature.feature, depth + 1
    kind = getattr(feature, "dtype", "")
    is_number = isinstance(feature, datasets.Value) and kind.startswith(("int", "uint", "float", "bool"))
    return (depth, kind) if depth and is_number else (0, "")


@dataclass(frozen=True)
class PixelLists:
    """Turns the cells of a column into encoded images, in the PGM and PPM formats: a line of text before the bytes.

    Args:
        column: The column.
        kind: The type of its numbers.
        white: The number that is white; black is 0.
    """

    column: str
    kind: str
    white: float

    @classmethod
    def find(cls, table: "datasets.Dataset | datasets.IterableDataset", column: str) -> "PixelLists | None":
        """Look whether ``column`` holds lists of numbers, and what these mean; of a stream the first ones.

        Raises:
            ValueError: If the numbers do not say what is white, or their shape not what is height, width and channels.
        """
        depth, kind = depth_and_type((table.features or {}).get(column))
        if not depth:
            return None
        what = f"image_column={column!r}"
        first = next((row[column] for row in table.select_columns([column]) if row[column] is not None), None)
        if first is None:
            raise ValueError(f"{what} has no images, only empty rows")
        try:
            _picture(np.asarray(first, kind))
        except ValueError as error:
            raise ValueError(f"{what} holds lists that are no image ({error}); name another column") from error
        chunks = _chunks(table, column) if hasattr(table, "__len__") else _first_rows(table, column, kind)
        levels = None
        for chunk in chunks:
            levels = Levels.of(chunk) if levels is None else levels | Levels.of(chunk)
            if kind == "uint8" and levels.high > 1:
                break
        assert levels is not None
        return cls(column, kind, levels.white(what))

    def apply(self, table: Any, keep: Iterable[str] = ()) -> Any:
        """Return the table, or stream, with encoded images; each is made when it is asked for."""
        import datasets

        if hasattr(table, "__len__"):
            return table.with_transform(self)
        features = {name: table.features[name] for name in keep} | {self.column: datasets.Image(decode=False)}
        return table.map(self, batched=True, features=datasets.Features(features))

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        """Encode the images of a batch of rows; what is no image becomes one that cannot be read."""
        return batch | {self.column: [self._encode(cell) for cell in batch[self.column]]}

    def _encode(self, cell: Any) -> dict[str, Any]:
        try:
            pixels = to_bytes(_picture(np.asarray(cell, self.kind)), self.white)
        except (ValueError, TypeError, OverflowError):  # a missing cell, lists of unequal lengths, missing numbers
            return EMPTY
        header = b"P%d %d %d 255\n" % (5 if pixels.ndim == 2 else 6, pixels.shape[1], pixels.shape[0])
        return {"bytes": header + pixels.tobytes(), "path": None}


def _picture(values: np.ndarray) -> np.ndarray:
    """Bring numbers into the shape (H, W) or (H, W, 3)."""
    shape = values.shape
    if 0 in shape:
        raise ValueError(f"of the shape {shape}")
    if len(shape) == 1 and math.isqrt(shape[0]) ** 2 == shape[0]:
        return values.reshape(math.isqrt(shape[0]), -1)
    if len(shape) == 2:
        return values
    if len(shape) == 3:
        first, last = shape[0] in (1, 3), shape[2] in (1, 3)
        if first != last:
            values = values if last else values.transpose(1, 2, 0)
            return values[..., 0] if values.shape[2] == 1 else values
    raise ValueError(
        f"of the shape {shape}; an image is (height, width), (height, width, 3), (3, height, width), or one list of as "
        "many numbers as a square has"
    )


def _chunks(table: "datasets.Dataset", column: str) -> Iterator[np.ndarray]:
    """All numbers of a column, (N,), in pieces."""
    for batch in table.select_columns([column]).with_format("arrow").iter(1024):
        for chunk in batch[column].chunks:
            numbers = _flat(chunk).to_numpy(zero_copy_only=False)
            if len(numbers):
                yield numbers


def _flat(array: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_nested(array.type):
            array = array.flatten()
        else:
            return array


def _first_rows(table: "datasets.IterableDataset", column: str, kind: str) -> Iterator[np.ndarray]:
    cells: Sequence[Any] = [row[column] for row in islice(table, _LOOKED_AT_IN_STREAM)]
    yield from (np.asarray(cell, kind) for cell in cells if cell is not None)
