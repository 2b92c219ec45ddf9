"""Residual convolutional networks between images and grids of features, for latents that have a place.

Like those of :mod:`lit_generative.nn.conv` they fold 2x2 pixels into channels and keep weights in channels_last.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.description import Described
from lit_generative.nn.layers import ChannelNorm, ClassEmbedding, ImageShape, channels_out, levels_down, levels_up
from lit_generative.nn.sizes import check_widths, halvings, padding_to

__all__ = ["GridDecoder", "GridEncoder"]


class GridEncoder(Described, nn.Module):
    """Features of an image at 1/2^k of its size, for k levels of residual blocks.

    They are normalised at each place (zero mean, unit variance over channels): a commitment loss would otherwise be
    lowered by ever smaller features.

    Args:
        image_shape: (C, H, W) of the images; sizes that do not halve evenly are padded.
        code_dim: Channels of the features.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest.
        blocks: Residual blocks a level.
        num_classes: For features that depend on a class: how many classes there are.

    Attributes:
        grid: (h, w), rows and columns of features.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        code_dim: int = 32,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        check_widths(widths)
        self.padding = padding_to(height, width, 2 ** len(widths))
        self.grid = halvings(height, width, len(widths))[-1]
        self.levels = levels_down(channels, widths, blocks)
        self.classes = ClassEmbedding(num_classes, widths[-1])
        self.head = nn.Sequential(ChannelNorm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], code_dim, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return features (B, code_dim, h, w), float32, of images (B, C, H, W) in [-1, 1]."""
        x = F.pad(x, self.padding, mode="replicate").to(memory_format=torch.channels_last)
        features = self.head(_with_classes(self.levels(x), self.classes, y)).float().movedim(1, 3)
        return F.layer_norm(features, features.shape[3:]).movedim(3, 1)


class GridDecoder(Described, nn.Module):
    """The parameters of p(x|z) from a grid z, the mirror image of :class:`GridEncoder`.

    Args:
        image_shape: (C, H, W) of the images.
        code_dim: Channels of z.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest.
        blocks: Residual blocks a level.
        num_classes: For p(x|z, y): how many classes there are.
        output_channels: As many as the likelihood needs for an image. None: those of the images.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        code_dim: int = 32,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        num_classes: int | None = None,
        output_channels: int | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        check_widths(widths)
        self.padding = padding_to(height, width, 2 ** len(widths))
        self.stem = nn.Conv2d(code_dim, widths[-1], 3, padding="same")
        self.classes = ClassEmbedding(num_classes, widths[-1])
        self.levels = levels_up(channels_out(output_channels, channels), widths, blocks)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the likelihood's parameters (B, output_channels, H, W) for ``z`` (B, code_dim, h, w)."""
        features = _with_classes(self.stem(z.contiguous(memory_format=torch.channels_last)), self.classes, y)
        return F.pad(self.levels(features), [-side for side in self.padding])


def _with_classes(features: Tensor, classes: ClassEmbedding, y: Tensor | None) -> Tensor:
    """Add the vectors of classes ``y`` (B,) to features (B, D, h, w) at each place."""
    return classes(features.permute(2, 3, 0, 1), y).permute(2, 3, 0, 1)
