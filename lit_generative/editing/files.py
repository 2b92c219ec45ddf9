"""Pictures of any size and kind in files, and what a model is to do with them: read, taken apart and written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features
from torch import Tensor

from lit_generative.data.gray_levels import to_bytes
from lit_generative.data.reading import ImageReadError, has_16_bits, is_deep, read_image
from lit_generative.files import check_folder, replacing

__all__ = ["PictureFile", "check_new_files", "from_pixels", "read_mask", "to_pixels"]

_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_KINDS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
_LARGEST = 64_000_000  # pixels of a picture, some 8000 x 8000


@dataclass(frozen=True)
class PictureFile:
    """A picture, upright: its colours and what is transparent.

    Attributes:
        colours: (C, H, W) in [-1, 1], with 1 channel if it is gray, else 3; transparent pixels have their own colour.
        alpha: 0 where it is transparent and 1 where not, (1, H, W); None: it is nowhere.
    """

    colours: Tensor
    alpha: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.colours.shape[1], self.colours.shape[2]

    @classmethod
    def read(cls, path: Path, argument: str = "image") -> "PictureFile":
        """Read a file of any kind of picture; of an animation it is the first one.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is no picture, or too large. ``argument`` is what the file was given for.
        """
        image = _open(path, argument)
        if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
            return cls(to_pixels(image.convert("L" if image.mode in ("L", "1") else "RGB")))
        is_gray = image.mode in ("LA", "La")
        whole = to_pixels(image.convert("LA" if image.mode == "La" else image.mode).convert("RGBA"))
        return cls(whole[:1] if is_gray else whole[:3], (whole[3:] + 1) / 2)

    def on(self, background: float = 1.0) -> Tensor:
        """Return the colours as they are seen on a gray ground in [-1, 1], by default white: (C, H, W)."""
        if self.alpha is None:
            return self.colours
        return self.alpha * self.colours + (1 - self.alpha) * background

    def write(self, path: Path) -> None:
        """Write it, as what the file's ending says; one with transparency needs a kind of file that has it."""
        image = from_pixels(self.colours if self.alpha is None else torch.cat([self.colours, 2 * self.alpha - 1]))
        with replacing(path) as scratch:
            image.save(scratch, format=_KINDS[path.suffix.lower()], **({"quality": 95} if _is_jpeg(path) else {}))


def _open(path: Path, argument: str) -> Image.Image:
    if not path.is_file():
        what = "is a folder; give a picture's file" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"{argument} {path}: {what}")
    try:
        image = read_image({"path": str(path), "bytes": None}, str(path))
        if image.width * image.height > _LARGEST:
            raise ValueError(f"{argument} {path} has {image.width} x {image.height} pixels; give at most 64 million")
        if is_deep(image):
            values = np.asarray(image)
            image = Image.fromarray(to_bytes(values, 65_535 if has_16_bits(image) else float(values.max()) or 1.0))
    except ImageReadError as error:
        raise ValueError(f"{argument} {str(error).partition('; on_error')[0]}; give a picture") from None
    return image


def read_mask(path: Path, size: tuple[int, int], image: Path) -> Tensor:
    """Read which pixels are to be made up: those that are white, (1, H, W), boolean.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture, of another size than the image's (H, W), or white nowhere or everywhere.
    """
    mask = PictureFile.read(path, "mask")
    if mask.size != size:
        (height, width), (h, w) = size, mask.size
        raise ValueError(f"mask {path} has {w} x {h} pixels, but {image} has {width} x {height}: give one of that size")
    is_hole = mask.on(-1).mean(dim=0, keepdim=True) > 0
    if not is_hole.any():
        raise ValueError(
            f"mask {path} is empty: it must be white where the picture is to be made up, and black elsewhere"
        )
    if is_hole.all():
        raise ValueError(
            f"mask {path} is white everywhere, so nothing of the picture would be kept: black is kept, and "
            "`lit-generative sample` draws whole pictures"
        )
    return is_hole


def check_new_files(paths: list[Path], has_alpha: bool) -> None:
    """See that files can be written there, before any work.

    Raises:
        ValueError: If one is there already, its ending is of no kind of picture, or of one without transparency where
            that is needed.
    """
    for path in paths:
        if path.suffix.lower() not in _KINDS:
            raise ValueError(f"output={path}: its ending says what is written; give {', '.join(_KINDS)}")
        if _is_jpeg(path) and has_alpha:
            raise ValueError(f"output={path}: JPEG files have no transparency, which the picture has; give a .png")
        if path.exists():
            raise ValueError(f"{path} is there already; give another output, nothing is overwritten")
        if path.suffix.lower() == ".webp" and not features.check("webp"):
            raise ValueError(f"output={path}: PIL was built without WebP here; give a .png")
    check_folder(paths[0].parent, "output")


def _is_jpeg(path: Path) -> bool:
    return _KINDS[path.suffix.lower()] == "JPEG"


def to_pixels(image: Image.Image) -> Tensor:
    """Return an image of 8 bits as (C, H, W) in [-1, 1]."""
    values = torch.from_numpy(np.array(image)).float() / 127.5 - 1
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1)


def from_pixels(pixels: Tensor) -> Image.Image:
    """Undo :func:`to_pixels`, for 1 channel, 2 (gray, alpha), 3 or 4."""
    values = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).contiguous().numpy())
