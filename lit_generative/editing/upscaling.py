"""Super-resolution of pictures of any size, by a model of one size: in tiles that overlap."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_generative.agreement import shape_of
from lit_generative.editing.files import PictureFile
from lit_generative.editing.frames import resized
from lit_generative.nn.image_conditions import luma

__all__ = ["upscaled"]

AT_ONCE = 16  # tiles


def upscaled(model: Any, picture: PictureFile, generator: torch.Generator | None = None) -> PictureFile:
    """Return a picture larger by the model's factor.

    The model sees tiles of the size that it was trained on, whose borders are mixed. A gray model makes the brightness,
    and the colours are bicubic, as eyes see them less sharply.
    """
    channels = shape_of(model)[0]  # type: ignore[index]
    factor = model.condition.factor
    size = (picture.size[0] * factor, picture.size[1] * factor)
    seen = picture.on()
    alpha = None if picture.alpha is None else (resized(2 * picture.alpha - 1, size) + 1) / 2
    if channels == len(seen):
        return PictureFile(_tiled(model, seen, generator), alpha)
    if channels == 3:
        made = _tiled(model, seen.expand(3, -1, -1), generator)
        return PictureFile(luma(made), alpha)
    brightness = luma(seen)
    colours = resized(seen, size) + _tiled(model, brightness, generator) - resized(brightness, size)
    return PictureFile(colours.clamp(-1, 1), alpha)


def _tiled(model: Any, small: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return a picture (C, h, w) enlarged, (C, factor h, factor w)."""
    _, height, width = shape_of(model)  # type: ignore[misc]
    condition, factor = model.condition, model.condition.factor
    tile = [-(-side // factor) for side in (height, width)]
    more = [max(0, side - own) for side, own in zip(tile, small.shape[1:], strict=True)]
    padded = F.pad(small[None], (0, more[1], 0, more[0]), mode="replicate")[0]
    tops, lefts = (_starts(own, side) for own, side in zip(padded.shape[1:], tile, strict=True))
    places = [(top, left) for top in tops for left in lefts]
    tiles = torch.stack([padded[:, top : top + tile[0], left : left + tile[1]] for top, left in places])
    weight = _ramp(height)[:, None] * _ramp(width)
    total = torch.zeros(len(small), padded.shape[1] * factor, padded.shape[2] * factor)
    weights = torch.zeros_like(total[:1])
    for first in range(0, len(tiles), AT_ONCE):
        y = condition.upscaled(tiles[first : first + AT_ONCE], (height, width)).to(model.device)
        images = model.sample(len(y), y, generator=generator).float().cpu()
        for image, (top, left) in zip(images, places[first : first + AT_ONCE], strict=True):
            rows, columns = slice(top * factor, top * factor + height), slice(left * factor, left * factor + width)
            part = total[:, rows, columns]
            part += (weight * image)[:, : part.shape[1], : part.shape[2]]
            weights[:, rows, columns] += weight[: part.shape[1], : part.shape[2]]
    whole = total / weights.clamp(min=1e-6)
    return whole[:, : small.shape[1] * factor, : small.shape[2] * factor]


def _starts(length: int, tile: int) -> list[int]:
    """Return where tiles begin that cover a length, a quarter of each shared with the next."""
    step = max(1, tile - max(1, tile // 4))
    return sorted({*range(0, length - tile, step), length - tile})


def _ramp(length: int) -> Tensor:
    """Return weights (length,) that fall to the ends of a tile."""
    place = torch.arange(length) + 0.5
    return (torch.minimum(place, length - place) / (length / 4)).clamp(max=1)
