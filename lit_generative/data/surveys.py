"""What is learnt from images before they are decoded: sizes, colour, and what is white."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags

from lit_generative.data.gray_levels import Levels
from lit_generative.data.reading import (
    ImageReadError,
    has_16_bits,
    is_colour,
    is_deep,
    open_image,
    read_image,
    unreadable,
)

__all__ = ["Survey", "survey"]

_DEEP_LOOKED_AT = 64  # images of more than 8 bits whose values are read to learn what is white
_DARK = 4095  # of 65,535: what 12 bits reach


@dataclass(frozen=True)
class Survey:
    """What some images tell.

    Args:
        sizes: All their sizes (height, width).
        colour: Whether any is in colour.
        white: The value that is white in 32-bit images; None if there are none, or it cannot be told.
    """

    sizes: frozenset[tuple[int, int]]
    colour: bool
    white: float | None = None


def survey(rows: Iterable[tuple[dict[str, Any], str]], skip_unreadable: bool) -> Survey:
    """Read the headers of images, and the values of the first ones of more than 8 bits.

    Args:
        rows: The images, as pairs of a row and a name (as for :class:`~.decode.Decoder`).
        skip_unreadable: Whether those that cannot be read are passed over.

    Raises:
        ImageReadError: If an image cannot be read and ``skip_unreadable`` is false, or if none can.
        ValueError: If images of more than 8 bits do not tell what is white.
    """
    sizes, colour, last_error = set(), False, None
    sixteen_bits, others = _Deep(), _Deep()
    for row, name in rows:
        name = row.get("path") or name
        try:
            header = _inspect(row, name)
            if header.is_deep:
                (sixteen_bits if header.has_16_bits else others).look_at(row, name)
        except ImageReadError as error:
            if not skip_unreadable:
                raise
            last_error = error
        else:
            sizes.add(header.size)
            colour = colour or header.colour
    if not sizes:
        raise last_error or ImageReadError("there are no images")
    sixteen_bits.refuse_darkness()
    return Survey(frozenset(sizes), colour, others.white(skip_unreadable))


@dataclass
class _Deep:
    """The values of the first images of more than 8 bits."""

    name: str = ""  # of the first one
    levels: Levels | None = None
    num: int = 0

    def look_at(self, row: dict[str, Any], name: str) -> None:
        if self.num == _DEEP_LOOKED_AT:
            return
        found = Levels.of(np.asarray(read_image(row, name)))
        self.levels = found if self.levels is None else self.levels | found
        self.name, self.num = self.name or name, self.num + 1

    def refuse_darkness(self) -> None:
        if self.levels and 0 < self.levels.high <= _DARK:
            raise ValueError(
                f"{self.name}, of 16 bits, and others like it have values up to {self.levels.high:,.0f} of 65,535 and "
                "would be almost black; scale them, or convert them to 8 bits"
            )

    def white(self, skip_unreadable: bool) -> float | None:
        try:
            return None if self.levels is None else self.levels.white(f"{self.name}, with {self.num - 1} like it,")
        except ValueError:
            if skip_unreadable:  # each is left out when it is decoded
                return None
            raise


@dataclass(frozen=True)
class _Header:
    """Of an upright image: height and width, and whether it is in colour, has more than 8 bits, has 16."""

    size: tuple[int, int]
    colour: bool
    is_deep: bool
    has_16_bits: bool


def _inspect(row: dict[str, Any], name: str) -> _Header:
    try:
        with open_image(row) as image:
            # To look for a late EXIF block PIL would decode the whole of a PNG
            has_exif = image.format != "PNG" or "exif" in image.info
            lies_on_its_side = has_exif and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            size = image.size if lies_on_its_side else image.size[::-1]
            return _Header(size, is_colour(image), is_deep(image), has_16_bits(image))
    except Exception as error:  # a damaged file makes the readers raise almost anything
        raise unreadable(name, error) from error
