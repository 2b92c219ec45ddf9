"""From an encoded image of any kind to 8-bit pixels of one shape, by PIL."""

import functools
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError

__all__ = ["IN_ZIP", "Decoder", "ImageReadError", "Survey", "attempt", "check_background", "different_sizes", "survey"]

IN_ZIP = "zip://"
"""Begins the address of an image in a zip file, ``zip://member::archive``, as in ``datasets``."""

_COLOUR = {"RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_SIXTEEN_BITS = {"I;16", "I;16L", "I;16B", "I;16N", "I"}


class ImageReadError(ValueError):
    """An image is corrupt, or of a kind that has no meaning as 8-bit pixels. The message names it."""


@dataclass(frozen=True)
class Decoder:
    """Turns a row's encoded image into pixels.

    Palette and CMYK images become RGB; transparent ones are flattened on ``background``; 16-bit values are divided by
    257, so that 65,535 becomes 255. The shorter side is resized to ``size`` by an antialiased bicubic filter and the
    centre is cut out.

    Args:
        channels: 1 for grayscale, 3 for RGB.
        size: height and width in pixels.
        resize: Whether images of another size are resized and cropped. If not, they are an error.
        background: The colour behind transparent pixels, as PIL.ImageColor knows it: ``white``, ``#ff8800``.
        accept_colour: Whether a colour image may be turned into grayscale where ``channels`` is 1.
    """

    channels: int
    size: tuple[int, int]
    resize: bool
    background: str = "white"
    accept_colour: bool = True

    @property
    def resizing(self) -> str:
        """How images are resized, in words."""
        return "PIL, bicubic, antialiased; centre crop" if self.resize else "none"

    def __call__(self, row: dict[str, Any], name: str) -> np.ndarray:
        """Decode one image.

        Args:
            row: The encoded image as ``datasets`` stores it: ``{"bytes": …, "path": …}``, one of them not None.
            name: What errors call an image that has no path.

        Returns:
            uint8 pixels (C, H, W).

        Raises:
            ImageReadError: If the image cannot be read.
            ValueError: If it is unlike the others: of another size without ``resize``, or in colour where all those
                that were looked at are gray.
        """
        name = row.get("path") or name
        image = _read(row, name)
        if self.channels == 1 and not self.accept_colour and _is_colour(image):
            raise ValueError(
                f"{name} is in colour, but the images looked at are gray; give channels: 3 (or 1) yourself"
            )
        image = _flatten(image, self.background, name).convert("L" if self.channels == 1 else "RGB")
        width, height = self.size[1], self.size[0]
        if image.size != (width, height):
            if not self.resize:
                raise ValueError(different_sizes(f"{name} is {image.height}x{image.width}, others {height}x{width}"))
            image = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)
        return pixels[None] if self.channels == 1 else pixels.transpose(2, 0, 1)


def attempt(decoder: Decoder, row: dict[str, Any], name: str) -> np.ndarray | ImageReadError:
    """Decode an image; one that cannot be read is returned as its error, so that the others go on."""
    try:
        return decoder(row, name)
    except ImageReadError as error:
        return error


def different_sizes(which: str) -> str:
    """The one message for images that do not fit together."""
    return f"the images have different sizes ({which}); give image_size, to which all are resized and cropped"


@dataclass(frozen=True)
class Survey:
    """What the headers of some images say: all ``sizes`` (height, width) and whether any is in ``colour``."""

    sizes: frozenset[tuple[int, int]]
    colour: bool


def survey(rows: Iterable[tuple[dict[str, Any], str]], skip_unreadable: bool) -> Survey:
    """Look at the headers of images, given as pairs of a row and a name (as for :class:`Decoder`).

    Raises:
        ImageReadError: If a header cannot be read and ``skip_unreadable`` is false, or if no header can.
    """
    sizes, colour, last_error = set(), False, None
    for row, name in rows:
        try:
            size, is_colour = _inspect(row, row.get("path") or name)
        except ImageReadError as error:
            if not skip_unreadable:
                raise
            last_error = error
        else:
            sizes.add(size)
            colour = colour or is_colour
    if not sizes:
        raise last_error or ImageReadError("there are no images")
    return Survey(frozenset(sizes), colour)


def check_background(background: str) -> None:
    """Raise ValueError if PIL does not know the colour."""
    try:
        ImageColor.getrgb(background)
    except ValueError:
        raise ValueError(f"background={background!r} is no colour; give a name or #rrggbb, such as white") from None


def _open(row: dict[str, Any]) -> Image.Image:
    """Open an image; only the header is read where the image is in memory or in a local file."""
    path, content = row["path"], row["bytes"]
    if content is None and path.startswith(IN_ZIP):
        member, _, archive = path.removeprefix(IN_ZIP).partition("::")
        content = _archive(archive, os.getpid()).read(member)
    elif content is None and not os.path.exists(path):  # an address that datasets understands, in a stream
        import datasets

        return datasets.Image().decode_example(row)
    return Image.open(path if content is None else BytesIO(content))


@functools.lru_cache(maxsize=8)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """Open a zip file once in each process, since forked processes would share the position in the file."""
    return zipfile.ZipFile(path)


def _read(row: dict[str, Any], name: str) -> Image.Image:
    """Read an image, upright."""
    try:
        with _open(row) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except Exception as error:  # a damaged file makes the readers raise almost anything
        raise _unreadable(name, error) from error


def _inspect(row: dict[str, Any], name: str) -> tuple[tuple[int, int], bool]:
    """Height and width of an upright image, and whether it is in colour."""
    try:
        with _open(row) as image:
            # To look for a late EXIF block PIL would decode the whole of a PNG
            has_exif = image.format != "PNG" or "exif" in image.info
            lies_on_its_side = has_exif and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.size if lies_on_its_side else image.size[::-1]), _is_colour(image)
    except Exception as error:  # as above
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> ImageReadError:
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else f"{error}"
    return ImageReadError(f"{name} cannot be read as an image ({reason}); on_error: skip leaves such images out")


def _is_colour(image: Image.Image) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode in _COLOUR


def _flatten(image: Image.Image, background: str, name: str) -> Image.Image:
    """To 8 bits without transparency."""
    if image.mode in _SIXTEEN_BITS:
        values = np.asarray(image)
        if values.min() >= 0 and values.max() <= 65_535:
            return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageReadError(
            f"{name} has 32-bit values ({image.mode}), whose range is unknown; convert it to 8 or 16 bits"
        )
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):  # colours multiplied by alpha
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        canvas = Image.new("RGBA", image.size, background)
        return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    return image if image.mode == "L" else image.convert("RGB")
