"""Where a picture of any size lies in an image of a model's size, and the way there and back."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Frame", "resized", "softened"]


@dataclass(frozen=True)
class Frame:
    """A part of a picture, of the shape of a model's images; it may reach beyond the picture, whose borders go on.

    Attributes:
        top, left, height, width: The part, in pixels of the picture.
        size: (H, W) of the model's images.
    """

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]

    @classmethod
    def around(cls, picture: tuple[int, int], size: tuple[int, int], is_hole: Tensor | None = None) -> "Frame":
        """Return the largest part within a picture (H, W), moved to a hole (1, H, W), if there is one.

        A hole that does not fit into it, and a picture that is to be remade as a whole, get one that holds all of it.
        """
        (rows, columns), (height, width) = picture, size
        inner, outer = sorted([rows / height, columns / width])
        if is_hole is None:
            return cls._centred((rows / 2, columns / 2), outer, size)
        ends = [_extent(is_hole[0].any(dim=1 - axis)) for axis in (0, 1)]
        if any(last - first > round(inner * side) for (first, last), side in zip(ends, size, strict=True)):
            return cls._centred((rows / 2, columns / 2), outer, size)
        frame = cls._centred([(first + last) / 2 for first, last in ends], inner, size)
        top = min(max(frame.top, 0), rows - frame.height)
        left = min(max(frame.left, 0), columns - frame.width)
        return cls(max(top, 0), max(left, 0), frame.height, frame.width, size)

    @classmethod
    def _centred(cls, centre: tuple[float, float] | list[float], scale: float, size: tuple[int, int]) -> "Frame":
        height, width = (max(1, round(scale * side)) for side in size)
        return cls(round(centre[0] - height / 2), round(centre[1] - width / 2), height, width, size)

    @property
    def scale(self) -> float:
        """How many pixels of the picture are one of the model's."""
        return max(self.height / self.size[0], self.width / self.size[1])

    def _places(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        rows = torch.arange(self.top, self.top + self.height).clamp(0, picture.shape[-2] - 1)
        columns = torch.arange(self.left, self.left + self.width).clamp(0, picture.shape[-1] - 1)
        return rows, columns

    def cut(self, picture: Tensor) -> Tensor:
        """Return the part of a picture (C, H, W) at the model's size, bicubic and antialiased."""
        rows, columns = self._places(picture)
        return resized(picture[:, rows][:, :, columns], self.size)

    def cut_hole(self, is_hole: Tensor) -> Tensor:
        """Return where anything of a hole (1, H, W) is, (1, H, W) of the model's size, boolean."""
        rows, columns = self._places(is_hole)
        part = is_hole[:, rows][:, :, columns].float()
        return F.interpolate(part[None], self.size, mode="bilinear", antialias=True)[0] > 1e-3

    def put_back(self, image: Tensor, picture: Tensor) -> Tensor:
        """Return a picture (C, H, W) with an image of the model's size in its place."""
        part = resized(image, (self.height, self.width))
        rows, columns = picture.shape[1:]
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + self.height, rows), min(self.left + self.width, columns)
        result = picture.clone()
        result[:, top:bottom, left:right] = part[
            :, top - self.top : bottom - self.top, left - self.left : right - self.left
        ]
        return result


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a picture (C, H, W) in [-1, 1] at another size, bicubic and antialiased."""
    if tuple(picture.shape[1:]) == tuple(size):
        return picture
    return F.interpolate(picture[None].float(), size, mode="bicubic", antialias=True)[0].clamp(-1, 1)


def softened(is_hole: Tensor, radius: int) -> Tensor:
    """Return how much of what is made up shows, (1, H, W): none outside of a hole, all ``radius`` pixels within."""
    hole = is_hole.float()
    if radius < 1:
        return hole
    padded = F.pad(hole[None], [radius] * 4, mode="replicate")
    return (2 * F.avg_pool2d(padded, 2 * radius + 1, stride=1)[0] - 1).clamp(0, 1) * hole


def _extent(is_any: Tensor) -> tuple[int, int]:
    places = is_any.nonzero()
    return int(places.min()), int(places.max()) + 1
