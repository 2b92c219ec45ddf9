"""The picture writer: image tensors in [-1, 1] to PNG files of the same size and channels, 8 bit."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

__all__ = ["save_png", "tile", "to_uint8"]


def to_uint8(images: Tensor) -> Tensor:
    """Map [-1, 1] to 0...255, rounding to the nearest level; the inverse of the data module's scaling."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def tile(images: Tensor, columns: int | None = None) -> Tensor:
    """Lay out images (N, C, H, W) row by row on one (C, H', W'), a black line of two pixels between them.

    Args:
        images: Images in [-1, 1].
        columns: Images a row; None: a grid as near to a square as can be.
    """
    columns = columns or round(len(images) ** 0.5)
    missing = -len(images) % columns
    images = F.pad(images.float().cpu(), (0, 2, 0, 2, 0, 0, 0, missing), value=-1)  # (N', C, H + 2, W + 2)
    rows = images.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return rows[:, :-2, :-2]


def save_png(image: Tensor, path: Path) -> None:
    """Write an image (1, H, W) as grayscale or (3, H, W) as RGB; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = to_uint8(image).cpu()
    picture = Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy())
    picture.save(path, format="PNG")
