"""The network of a ladder VAE: features of an image from fine to coarse, and latents from coarse to fine.

It is that of the very deep VAE (VDVAE, Child 2021, figure 3): no attention, no normalisation.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor, nn
from torch.distributions import Independent
from torch.nn import functional as F

from lit_generative.checks import check_counts
from lit_generative.description import Described
from lit_generative.nn.ladder_blocks import BottomUpEncoder, Draw, LadderStage, LatentLevel, TopDownDecoder
from lit_generative.nn.layers import channels_out
from lit_generative.nn.sizes import ImageShape, check_sizes, fold, unfold
from lit_generative.numerics import at_least_single

__all__ = ["LadderNetwork", "blocks_by_resolution"]


class LadderNetwork(Described, nn.Module):
    """q(z | x) and p(z) with z = (z_1, ..., z_L) from coarse to fine, and the parameters of p(x | z).

    The encoder halves the image step by step; the decoder starts from a learned map of the coarsest resolution, and
    each of its blocks gives p(z_l | z_<l) and, from the encoder's features of its resolution, q(z_l | x, z_<l).
    Both are diagonal normals of Z channels a position.

    Args:
        image_shape: (C, H, W) of the images.
        blocks: The decoder's blocks a resolution, from fine to coarse, each with latents of its own:
            "28x1,14x3,7x4,1x2" are 10. A resolution is the longer side of the feature maps, at most. Where the first
            is below the image's, patches of the image are folded into channels; images are padded as needed.
        widths: Channels at each resolution, from fine to coarse.
        hidden: Channels inside the blocks, which are bottlenecks.
        latent_channels: Z.
        encoder_blocks: The encoder's blocks a resolution, for the same resolutions. None: as many as the decoder's.
        output_channels: How many channels come out: the likelihood's ``channels(C)``. None: those of the images.
        num_classes: For p(x, z | y) and q(z | x, y): how many classes there are.

    Raises:
        ValueError: If ``blocks`` or ``encoder_blocks`` cannot be read, their resolutions or the ``widths`` do not go
            together, or a number is below 1.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        blocks: str = "14x3,7x3,4x2,1x1",
        widths: Sequence[int] = (64, 96, 128, 128),
        hidden: int = 32,
        latent_channels: int = 8,
        encoder_blocks: str | None = None,
        output_channels: int | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, hidden=hidden, latent_channels=latent_channels, num_classes=num_classes)
        channels, height, width = image_shape
        downward = blocks_by_resolution("blocks", blocks)
        self.size = height, width
        self.patch = ceil(max(height, width) / max(downward))
        size = ceil(height / self.patch), ceil(width / self.patch)
        stages = _stages(size, downward, _upward(encoder_blocks or blocks, blocks), widths)
        self.level_sizes = [stage.size for stage in reversed(stages) for _ in range(stage.decoder_blocks)]
        self.encoder = BottomUpEncoder(channels * self.patch**2, stages, hidden)
        self.decoder = TopDownDecoder(stages, hidden, latent_channels, num_classes)
        self.head = nn.Conv2d(widths[0], channels_out(output_channels, channels) * self.patch**2, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, list[LatentLevel]]:
        """Return what :meth:`descend` does, with one z of q(z | x, y) an image, for images (B, C, H, W) in [-1, 1]."""
        return self.descend(len(x), Independent.rsample, self.ascend(x), y)

    def ascend(self, x: Tensor) -> list[Tensor]:
        """Return the features of images ``x`` (B, C, H, W), a map for each resolution from fine to coarse."""
        return self.encoder(fold(x, self.patch, "replicate").contiguous(memory_format=torch.channels_last))

    def descend(
        self, n: int, draw: Draw, features: list[Tensor] | None = None, y: Tensor | None = None
    ) -> tuple[Tensor, list[LatentLevel]]:
        """Draw latents level by level and decode them.

        Args:
            n: How many images, B.
            draw: What to take of the posterior, or without features of the prior: a sample, or the mean.
            features: What :meth:`ascend` returned, of B images.
            y: Labels (B,) of a conditional model.

        Returns:
            The likelihood's parameters (B, output_channels, H, W), float32, and the levels from coarse to fine.
        """
        x, levels = self.decoder(n, draw, features, y)
        return unfold(at_least_single(self.head(F.silu(x))), self.patch, self.size), levels


def blocks_by_resolution(name: str, blocks: str) -> dict[int, int]:
    """Read "28x1,14x3" as {28: 1, 14: 3}.

    Args:
        name: The argument's, for errors.
        blocks: Blocks a resolution, from fine to coarse.

    Raises:
        ValueError: If a part is not RESOLUTIONxBLOCKS, both at least 1, or the resolutions do not fall.
    """
    found: dict[int, int] = {}
    for part in str(blocks).split(","):
        match = re.fullmatch(r"\s*([1-9]\d*)x([1-9]\d*)\s*", part)
        if match is None:
            raise ValueError(f"{name}={blocks!r}: {part!r} is no RESOLUTIONxBLOCKS; write for instance '14x3,7x4,1x2'")
        found[int(match[1])] = int(match[2])
    if list(found) != sorted(found, reverse=True) or len(found) <= blocks.count(","):
        raise ValueError(f"{name}={blocks!r}: its resolutions must fall from one to the next, as in '14x3,7x4,1x2'")
    return found


def _upward(encoder_blocks: str, blocks: str) -> dict[int, int]:
    """Read the encoder's blocks, whose resolutions must be the decoder's."""
    upward = blocks_by_resolution("encoder_blocks", encoder_blocks)
    if upward.keys() != blocks_by_resolution("blocks", blocks).keys():
        raise ValueError(f"encoder_blocks={encoder_blocks!r}: its resolutions must be those of blocks={blocks!r}")
    return upward


def _stages(
    size: tuple[int, int], downward: dict[int, int], upward: dict[int, int], widths: Sequence[int]
) -> list[LadderStage]:
    """Return the stages from fine, of the given size, to coarse."""
    check_counts("widths", widths)
    if len(widths) != len(downward) or min(widths) < 1:
        raise ValueError(f"widths={list(widths)}: give a positive number for each of {len(downward)} resolutions")
    stages: list[LadderStage] = []
    resolutions = list(downward)
    factors = [1, *(ceil(fine / coarse) for fine, coarse in pairwise(resolutions))]
    for resolution, factor, width in zip(resolutions, factors, widths, strict=True):
        size = ceil(size[0] / factor), ceil(size[1] / factor)
        stages.append(LadderStage(size, factor, width, upward[resolution], downward[resolution]))
    return stages
