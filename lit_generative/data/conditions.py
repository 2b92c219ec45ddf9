"""Columns of a table that are given to models beside images and labels, as arrays of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import datasets

__all__ = ["ConditionColumns"]


@dataclass(frozen=True)
class ConditionColumns:
    """Columns by name, and of those that hold text or booleans the values, whose places are their numbers.

    Args:
        names: The columns.
        values: Of each of those columns, what there is in the training split, in order.
    """

    names: tuple[str, ...]
    values: dict[str, list[Any]]

    @classmethod
    def of(cls, table: "datasets.Dataset", names: Sequence[str]) -> "ConditionColumns":
        """Find the columns in the table of the training split.

        Raises:
            ValueError: If one is not there, is called like a part of every batch, or holds neither text nor numbers.
        """
        values = {}
        for name in names:
            if name not in table.column_names or name in ("image", "label"):
                others = ", ".join(c for c in table.column_names if c not in ("image", "label")) or "none"
                raise ValueError(f"condition_columns={list(names)}: {name!r} is no further column; there are {others}")
            kinds = {type(value) for value in table[name] if value is not None}
            if kinds & {str, bool}:
                values[name] = sorted({value for value in table[name] if value is not None}, key=str)
            elif not kinds <= {int, float, list}:
                shown = ", ".join(sorted(kind.__name__ for kind in kinds))
                raise ValueError(f"condition_columns: {name!r} holds {shown}; it must be text, booleans or numbers")
        return cls(tuple(names), values)

    def read(self, table: "datasets.Dataset", origin: str) -> dict[str, np.ndarray]:
        """Return the columns of a table: int64 (N,) for numbers of values and whole numbers, else float32 (N, ...).

        What is missing, or a text that the training split has not, is -1 among numbers of values, else NaN.

        Raises:
            ValueError: If a column is missing, or its lists have several lengths.
        """
        found = {}
        for name in self.names:
            if name not in table.column_names:
                raise ValueError(f"condition_columns: the split {origin!r} has no column {name!r}")
            column = table[name][:]
            if name in self.values:
                place = {value: i for i, value in enumerate(self.values[name])}
                found[name] = np.array([place.get(value, -1) for value in column], np.int64)
            elif all(isinstance(value, int) for value in column):
                found[name] = np.array(column, np.int64)
            else:
                found[name] = _floats(column, name)
        return found


def _floats(column: Sequence[Any], name: str) -> np.ndarray:
    lengths = {len(value) if isinstance(value, list) else 0 for value in column if value is not None}
    if len(lengths) > 1:
        raise ValueError(f"condition_columns: {name!r} has lists of several lengths; give all as many numbers")
    length = max(lengths, default=0)
    missing: Any = [np.nan] * length if length else np.nan
    return np.array([missing if value is None else value for value in column], np.float32)
