"""Which value is white, where the type of the values does not say: told from all values looked at, or refused."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Levels", "to_bytes"]

_EIGHT_BITS, _SIXTEEN_BITS = 255, 65_535


@dataclass(frozen=True)
class Levels:
    """The range of some pixels' values.

    Args:
        kind: The type of the values, as NumPy names it.
        low: The least value, nan if one is.
        high: The greatest value.
        is_whole: Whether all values are whole numbers.
    """

    kind: str
    low: float
    high: float
    is_whole: bool

    @classmethod
    def of(cls, values: np.ndarray) -> "Levels":
        """The range of ``values``, of which there is at least one."""
        is_whole = values.dtype.kind in "biu" or bool((values == np.rint(values)).all())
        return cls(values.dtype.name, float(values.min()), float(values.max()), is_whole)

    def __or__(self, other: "Levels") -> "Levels":
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)  # nan wins
        return Levels(self.kind, float(low), float(high), self.is_whole and other.is_whole)

    def white(self, what: str) -> float:
        """The value that is white: 1, 255 or 65,535; black is 0.

        It is certain of values that fill [0, 1], of whole ones in [0, 255], and of 16 bits of which the upper half is
        in use.

        Args:
            what: Whose values they are, for the message.

        Raises:
            ValueError: If it is not certain.
        """
        if self.low >= 0:
            if self.high <= 1:
                return 1
            if self.high <= _EIGHT_BITS and self.is_whole:
                return _EIGHT_BITS
            if self.kind == "uint16" and self.high > _SIXTEEN_BITS / 2:
                return _SIXTEEN_BITS
        raise ValueError(
            f"{what} has {self.kind} values from {self.low:g} to {self.high:g}, which do not say what is black and "
            "what is white; convert them to 8 bits (0 to 255)"
        )


def to_bytes(values: np.ndarray, white: float) -> np.ndarray:
    """Return uint8 levels for ``values`` from 0 to ``white``, rounded to the nearest.

    Raises:
        ValueError: If a value is outside of that range.
    """
    if values.dtype == np.uint8 and white == _EIGHT_BITS:
        return values
    if not (values.min() >= 0 and values.max() <= white):
        raise ValueError(f"values from {values.min():g} to {values.max():g}, while others are from 0 to {white:g}")
    return np.rint(values / (white / _EIGHT_BITS)).astype(np.uint8)
