"""From an encoded image of any kind to 8-bit pixels of one shape, by PIL."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageOps

from lit_generative.data.gray_levels import to_bytes
from lit_generative.data.reading import ImageReadError, has_16_bits, is_colour, is_deep, read_image, unreadable

__all__ = ["Decoder", "attempt", "check_background", "different_sizes"]


@dataclass(frozen=True)
class Decoder:
    """Turns a row's encoded image into pixels.

    Palette and CMYK images become RGB; transparent ones are flattened on ``background``; 16-bit values are divided by
    257, so that 65,535 becomes 255, and 32-bit ones so that ``white`` does. The shorter side is resized to ``size`` by
    an antialiased bicubic filter and the centre is cut out.

    Args:
        channels: 1 for grayscale, 3 for RGB.
        size: height and width in pixels.
        resize: Whether images of another size are resized and cropped. If not, they are an error.
        background: The colour behind transparent pixels, as PIL.ImageColor knows it: ``white``, ``#ff8800``.
        accept_colour: Whether a colour image may be turned into grayscale where ``channels`` is 1.
        white: The value that is white in 32-bit images, as a :class:`Survey` tells it; None refuses them.
    """

    channels: int
    size: tuple[int, int]
    resize: bool
    background: str = "white"
    accept_colour: bool = True
    white: float | None = None

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
        image = read_image(row, name)
        if self.channels == 1 and not self.accept_colour and is_colour(image):
            raise ValueError(
                f"{name} is in colour, but the images looked at are gray; give channels: 3 (or 1) yourself"
            )
        image = _flatten(_to_8_bits(image, self.white, name), self.background, name)
        image = image.convert("L" if self.channels == 1 else "RGB")
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


def check_background(background: str) -> None:
    """Raise ValueError if PIL does not know the colour."""
    try:
        ImageColor.getrgb(background)
    except (ValueError, TypeError, AttributeError):
        raise ValueError(f"background={background!r} is no colour; give a name or #rrggbb, such as white") from None


def _to_8_bits(image: Image.Image, white: float | None, name: str) -> Image.Image:
    if not is_deep(image):
        return image
    white = 65_535 if has_16_bits(image) else white
    if white is None:
        raise ImageReadError(f"{name} has 32-bit values, and it is not known which is white; convert it to 8 bits")
    values = np.asarray(image)
    try:
        gray = Image.fromarray(to_bytes(values, white))
    except ValueError as error:
        raise ImageReadError(f"{name} has {error}; convert all to 8 bits") from error
    if "transparency" not in image.info:
        return gray
    opaque = (values != image.info["transparency"]).astype(np.uint8) * 255
    return Image.merge("LA", (gray, Image.fromarray(opaque)))


def _flatten(image: Image.Image, background: str, name: str) -> Image.Image:
    """To gray or RGB without transparency."""
    try:
        if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            if image.mode in ("La", "RGBa"):  # colours multiplied by alpha
                image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
            canvas = Image.new("RGBA", image.size, background)
            return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
        return image if image.mode == "L" else image.convert("RGB")
    except ValueError as error:  # a colour space that PIL does not convert
        raise unreadable(name, error) from error
