"""Arithmetic of images that are halved level by level."""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn

__all__ = ["Crop", "check_widths", "default_widths", "halvings", "padding_to"]


class Crop(nn.Module):
    """Cuts images down to (H, W) at the lower right, for a doubled size that should be odd.

    What is left is copied into channels_last where anything was cut: batch normalisation of a view takes many times
    as long on the CPU.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) of images at least as large."""
        return x[..., : self.size[0], : self.size[1]].contiguous(memory_format=torch.channels_last)


def check_widths(widths: Sequence[int]) -> None:
    """Refuse an empty list of channels a level."""
    if not widths:
        raise ValueError(f"widths={widths}: give the channels of at least one level, for instance [64, 128]")


def default_widths(height: int, width: int, coarsest: int = 8) -> list[int]:
    """Return 64, 128, 256, 512, 512, ... for as many halvings as bring the smaller side to ``coarsest`` or less."""
    levels = max(1, (ceil(min(height, width) / coarsest) - 1).bit_length())
    return [64 * 2 ** min(level, 3) for level in range(levels)]


def halvings(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """Return the size and its successive halves, rounded up: levels + 1 of them."""
    return [(ceil(height / 2**level), ceil(width / 2**level)) for level in range(levels + 1)]


def padding_to(height: int, width: int, multiple: int) -> list[int]:
    """Return [left, right, top, bottom] that bring an image to multiples of ``multiple``."""
    rows, columns = -height % multiple, -width % multiple
    return [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]
