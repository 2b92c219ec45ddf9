"""Encoded images, wherever they lie, opened by PIL."""

import functools
import os
import zipfile
from io import BytesIO
from typing import Any

import fsspec
import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

__all__ = [
    *(
        "IN_TAR",
        "IN_ZIP",
        "ImageReadError",
        "cut_out",
        "has_16_bits",
        "is_colour",
        "is_deep",
        "open_image",
        "read_image",
    ),
    *("readable_kinds", "unreadable"),
]

IN_ZIP = "zip://"
"""Begins the address of an image in a zip file, ``zip://member::archive``, as in ``datasets``."""

IN_TAR = "tar://"
"""Begins the address of an image in a tar file, ``tar://offset+size/member::archive``."""

_COLOUR = {"RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N"}
_NO_PICTURES = {"EPS", "MPEG"}  # a program, which PIL has Ghostscript run, and films


class ImageReadError(ValueError):
    """An image is corrupt, or of a kind that has no meaning as 8-bit pixels. The message names it."""


def open_image(row: dict[str, Any]) -> Image.Image:
    """Open an image; only the header is read where the image is in memory or in a local file."""
    path, content = row["path"], row["bytes"]
    if content is None and path.startswith(IN_ZIP):
        member, _, archive = path.removeprefix(IN_ZIP).rpartition("::")
        content = _archive(archive, os.getpid()).read(member)
    elif content is None and path.startswith(IN_TAR):
        content = cut_out(path)
    elif content is None and not os.path.exists(path):  # an address on the hub or elsewhere, in a stream
        with fsspec.open(path, "rb") as file:
            content = file.read()
    return Image.open(path if content is None else BytesIO(content), formats=sorted(readable_kinds()))


@functools.cache
def readable_kinds() -> frozenset[str]:
    """The formats of PIL that hold pictures and that it reads itself, without another program."""
    Image.init()
    kinds = {kind for kind, (factory, _) in Image.OPEN.items() if not _is_stub(factory)}
    return frozenset(kinds - _NO_PICTURES)


def _is_stub(factory: Any) -> bool:
    """Whether PIL knows the format by name only: HDF5, GRIB …"""
    return isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)


def cut_out(address: str) -> bytes:
    """Read a member of a tar file, whose place in it the address has."""
    place, _, archive = address.removeprefix(IN_TAR).rpartition("::")
    offset, _, size = place.partition("/")[0].partition("+")
    with open(archive, "rb") as file:
        file.seek(int(offset))
        return file.read(int(size))


@functools.lru_cache(maxsize=8)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """Open a zip file once in each process, since forked processes would share the position in the file."""
    return zipfile.ZipFile(path)


def read_image(row: dict[str, Any], name: str) -> Image.Image:
    """Read an image, upright."""
    try:
        with open_image(row) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except Exception as error:  # a damaged file makes the readers raise almost anything
        raise unreadable(name, error) from error


def unreadable(name: str, error: Exception) -> ImageReadError:
    """What to raise for ``error``, in one line."""
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
    reason = reason or type(error).__name__
    return ImageReadError(f"{name} cannot be read as an image ({reason}); on_error: skip leaves such images out")


def is_colour(image: Image.Image) -> bool:
    """Whether any pixel may be other than gray."""
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode in _COLOUR


def has_16_bits(image: Image.Image) -> bool:
    """Whether it is gray with 16 bits; PIL reads PGM files of more than 8 as 32, scaled to 16."""
    return image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM")


def is_deep(image: Image.Image) -> bool:
    """Whether it is gray with more than 8 bits."""
    return image.mode in _SIXTEEN_BITS or image.mode in ("I", "F")
