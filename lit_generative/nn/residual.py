"""Residual generator and discriminator without normalisation, in the manner of R3GAN (Huang et al. 2024, sec. 4).

As nothing normalises the signal, every layer starts so that it keeps the signal's scale.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.description import Described
from lit_generative.nn.conditions import Condition, condition_of
from lit_generative.nn.heads import ImageHead, LatentStem, ProjectionHead, SmoothImageHead
from lit_generative.nn.sizes import Crop, ImageShape, check_sizes, level_shapes

__all__ = ["ResidualDiscriminator", "ResidualGenerator"]

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class FixupBlock(nn.Module):
    """x + conv(act(conv(act(conv(x))))), kernels 1, 3 and 1, of unchanged shape (B, C, H, W), with leaky ReLU.

    It needs no normalisation: the last convolution starts at 0, so that the block starts as the identity, and the
    others are scaled down by the number of blocks L, to L^(-1/4) (Fixup, Zhang et al. 2019, for m = 3).

    Args:
        channels: Channels of x.
        num_blocks: The number of blocks in the network, L.
    """

    def __init__(self, channels: int, num_blocks: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.middle = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.last = nn.Conv2d(channels, channels, 1, bias=False)
        for convolution in (self.first, self.middle):
            _keeping_scale(convolution, slope=0.2).weight.data.mul_(num_blocks**-0.25)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + self.last(F.leaky_relu(self.middle(F.leaky_relu(self.first(x), 0.2)), 0.2))


class ResidualGenerator(Described, nn.Module):
    """Residual blocks at 1/2^k, ..., 1/4, 1/2 of the image's size, with bilinear doubling in between.

    Args:
        image_shape: (C, H, W) of the images.
        latent_dim: The size of z.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest. None:
            ``base_width`` times 1, 2, 4, 8, 8, ... until the smaller side is at most 8 pixels.
        blocks: Residual blocks a level.
        hidden: Widths of fully connected layers between z and the coarsest level.
        num_classes: For p(x|y): how many classes there are.
        smooth: Whether the last doubling is bilinear too, and not a transposed convolution, which may print a grid.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.
        base_width: Channels of the finest level, if ``widths`` does not say.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        widths: Sequence[int] | None = None,
        blocks: int = 1,
        hidden: Sequence[int] = (),
        num_classes: int | None = None,
        smooth: bool = False,
        condition: Condition | None = None,
        base_width: int = 64,
    ) -> None:
        super().__init__()
        sizes = {"latent_dim": latent_dim, "blocks": blocks, "base_width": base_width, "num_classes": num_classes}
        check_sizes(image_shape, {"hidden": hidden}, **sizes)
        _, *shapes = level_shapes(image_shape, widths, base=base_width)
        features, stem = [latent_dim, *hidden], []
        for i, o in pairwise(features):
            stem += [_keeping_scale(nn.Linear(i, o), slope=0.2), nn.LeakyReLU(0.2)]
        last = _keeping_scale(nn.Linear(features[-1], prod(shapes[-1])))
        self.stem = LatentStem([*stem, last], shapes[-1], condition_of(num_classes, condition))
        levels = _blocks(shapes[-1][0], blocks, len(shapes))
        for (coarse, *_), (fine, *size) in pairwise(reversed(shapes)):
            doubling = nn.Upsample(scale_factor=2, mode="bilinear")
            levels += [_keeping_scale(nn.Conv2d(coarse, fine, 1)), doubling, Crop(size)]
            levels += _blocks(fine, blocks, len(shapes))
        self.levels = nn.Sequential(*levels, nn.LeakyReLU(0.2))
        self.head = (SmoothImageHead if smooth else ImageHead)(shapes[0][0], image_shape)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1] for latents (B, latent_dim)."""
        return self.head(self.levels(self.stem(z, y)))


class ResidualDiscriminator(Described, nn.Module):
    """Residual blocks at 1/2, 1/4, ... of the image's size, with averages of 2 x 2 positions in between.

    Args:
        image_shape: (C, H, W) of the images.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest. None:
            ``base_width`` times 1, 2, 4, 8, 8, ... until the smaller side is at most 4 pixels.
        blocks: Residual blocks a level.
        num_classes: For D(x, y): how many classes there are.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.
        base_width: Channels of the finest level, if ``widths`` does not say.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        widths: Sequence[int] | None = None,
        blocks: int = 1,
        num_classes: int | None = None,
        condition: Condition | None = None,
        base_width: int = 64,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, blocks=blocks, num_classes=num_classes, base_width=base_width)
        _, *shapes = level_shapes(image_shape, widths, coarsest=4, base=base_width)
        channels, height, width = image_shape
        first = _keeping_scale(nn.Conv2d(channels, shapes[0][0], 4, 2, padding=1))
        levels: list[nn.Module] = [nn.ZeroPad2d((0, width % 2, 0, height % 2)), first]
        levels += _blocks(shapes[0][0], blocks, len(shapes))
        for (fine, *_), (coarse, *_) in pairwise(shapes):
            levels += [nn.AvgPool2d(2, ceil_mode=True), _keeping_scale(nn.Conv2d(fine, coarse, 1))]
            levels += _blocks(coarse, blocks, len(shapes))
        self.levels = nn.Sequential(*levels, nn.LeakyReLU(0.2))
        self.head = ProjectionHead(prod(shapes[-1]), condition_of(num_classes, condition))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (B,), float32, of images (B, C, H, W) in [-1, 1]."""
        return self.head(self.levels(x.contiguous(memory_format=torch.channels_last)).flatten(1), y)


def _blocks(channels: int, blocks: int, levels: int) -> list[nn.Module]:
    return [FixupBlock(channels, blocks * levels) for _ in range(blocks)]


def _keeping_scale(layer: Layer, slope: float = 1.0) -> Layer:
    """Draw weights with which a layer keeps the mean square of what it is given (He et al. 2015, eq. 15).

    ``slope`` is that of the leaky ReLU that follows, whose loss of scale is made up for; 1: none follows.
    """
    nn.init.kaiming_normal_(layer.weight, a=slope)
    return layer
