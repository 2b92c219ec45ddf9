"""Arithmetic of images that are halved level by level, or folded into patches."""

from collections.abc import Mapping, Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.checks import check_count, check_counts, check_image_shape

__all__ = [
    "Crop",
    "ImageShape",
    "autoencoder_widths",
    "check_sizes",
    "check_widths",
    "default_widths",
    "fold",
    "halvings",
    "level_shapes",
    "padding_to",
    "unet_sizes",
    "unfold",
]

ImageShape = tuple[int, int, int]
"""(C, H, W)."""


class Crop(nn.Module):
    """Cuts images down to (H, W) at the lower right, for a doubled size that should be odd.

    What is left is copied into channels_last where anything was cut: batch normalisation of a view takes many times
    as long on the CPU.
    """

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(size)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) of images at least as large."""
        return x[..., : self.size[0], : self.size[1]].contiguous(memory_format=torch.channels_last)


def check_widths(widths: Sequence[int]) -> None:
    """Refuse an empty list of channels a level, and numbers that are no channels."""
    check_counts("widths", widths, hint="it has the channels of each level, for instance [64, 128]")
    if not widths:
        raise ValueError(f"widths={widths}: give the channels of at least one level, for instance [64, 128]")


def check_sizes(
    image_shape: ImageShape, lists: Mapping[str, Sequence[int] | None] | None = None, **counts: int | None
) -> None:
    """Refuse sizes of a network that are not positive whole numbers.

    Args:
        image_shape: (C, H, W).
        lists: Lists of sizes by argument; empty ones pass.
        **counts: Sizes by argument; None passes.

    Raises:
        ValueError: It names the argument.
    """
    check_image_shape(image_shape)
    for name, values in (lists or {}).items():
        check_counts(name, values)
    if counts.get("latent_dim", 1) is None:
        raise ValueError("latent_dim=None: this network's latents are a vector; give the model its size, such as 64")
    for name, value in counts.items():
        check_count(name, value)


def default_widths(height: int, width: int, coarsest: int = 8, base: int = 64) -> list[int]:
    """Return ``base`` times 1, 2, 4, 8, 8, ... for as many halvings as bring the smaller side to ``coarsest``."""
    levels = max(1, (ceil(min(height, width) / coarsest) - 1).bit_length())
    return [base * 2 ** min(level, 3) for level in range(levels)]


def unet_sizes(height: int, width: int) -> tuple[int, list[int], list[int]]:
    """Return (patch, widths, attention) of a U-Net that a few cores train in minutes.

    Images are folded into patches of 1, 2, 4, ... pixels until the smaller side is at most 16 patches: the levels of
    single pixels cost more than they give, as most is learned from seeing many images. The levels, of 16 and 8 patches,
    have 32 and 64 channels and no attention: convolutions reach across them.
    """
    patch = 2 ** max(0, (ceil(min(height, width) / 16) - 1).bit_length())
    return patch, [32, 64], []


def autoencoder_widths(height: int, width: int) -> list[int]:
    """Return 64, 128, 256, 256, ... for as many halvings as bring the smaller side to 8 or less, at least one."""
    return [min(channels, 256) for channels in default_widths(height, width)]


def halvings(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """Return the size and its successive halves, rounded up: levels + 1 of them."""
    return [(ceil(height / 2**level), ceil(width / 2**level)) for level in range(levels + 1)]


def level_shapes(
    image_shape: ImageShape, widths: Sequence[int] | None, coarsest: int = 8, base: int = 64
) -> list[ImageShape]:
    """Return the shape of the image, and of features of ``widths`` channels at 1/2, 1/4, ... of its size.

    For ``widths`` None there are as many levels as :func:`default_widths` has.
    """
    channels, height, width = image_shape
    widths = default_widths(height, width, coarsest, base) if widths is None else widths
    check_widths(widths)
    sizes = halvings(height, width, len(widths))
    return [(c, *size) for c, size in zip([channels, *widths], sizes, strict=True)]


def padding_to(height: int, width: int, multiple: int) -> list[int]:
    """Return [left, right, top, bottom] that bring an image to multiples of ``multiple``."""
    rows, columns = -height % multiple, -width % multiple
    return [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2]


def fold(x: Tensor, patch: int, mode: str = "constant") -> Tensor:
    """Fold patches of pixels into channels: (B, C, H, W), padded as needed, to (B, C patch^2, H / patch, W / patch)."""
    return F.pixel_unshuffle(F.pad(x, padding_to(x.shape[2], x.shape[3], patch), mode), patch)


def unfold(x: Tensor, patch: int, size: Sequence[int]) -> Tensor:
    """Undo :func:`fold`, for images of ``size`` (H, W)."""
    height, width = size
    padding = padding_to(height, width, patch)
    return F.pad(F.pixel_shuffle(x, patch), [-side for side in padding])
