"""Residual levels of auto-encoders, at 1/2, 1/4, ... of an image's size.

Both ways fold 2x2 pixels into channels first (pixel unshuffle), which takes three quarters of the positions off the
costliest layers, and work in channels_last, which bf16 convolutions on a CPU are several times faster in.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.nn.layers import channels_out
from lit_generative.nn.sizes import ImageShape, autoencoder_widths, level_shapes, padding_to

__all__ = ["ChannelNorm", "DownLevels", "ResidualBlock", "UpLevels"]


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each position (Ba et al. 2016), as in ConvNeXt (Liu et al. 2022).

    Unlike batch normalisation it treats every image by itself, so that training, evaluation, an average of the weights
    and several processes agree; in channels_last it costs the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape and type."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, weight, bias).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))), of unchanged shape (B, C, H, W) (He et al. 2016, pre-activation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class DownLevels(nn.Module):
    """From images (B, C, H, W) to features (B, *shape) at 1/2^k of the size, by residual blocks at each of k levels."""

    def __init__(self, image_shape: ImageShape, widths: Sequence[int] | None, blocks: int) -> None:
        super().__init__()
        widths = autoencoder_widths(*image_shape[1:]) if widths is None else widths
        shapes = level_shapes(image_shape, widths)
        self.shape = shapes[-1]
        self.padding = padding_to(*image_shape[1:], 2 ** len(widths))
        layers: list[nn.Module] = []
        for level, ((from_width, *_), (to_width, *_)) in enumerate(pairwise(shapes)):
            layers += [nn.PixelUnshuffle(2), _first_or_pointwise(level, 4 * from_width, to_width)]
            layers += [ResidualBlock(to_width) for _ in range(blocks)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the coarsest features; images that do not halve evenly are padded."""
        return self.layers(F.pad(x, self.padding, mode="replicate").to(memory_format=torch.channels_last))


class UpLevels(nn.Module):
    """The mirror image of :class:`DownLevels`, to (B, output_channels, H, W).

    Args:
        image_shape: (C, H, W) of the images.
        widths: Channels at each level, from the finest to the coarsest. None: those of
            :func:`~lit_generative.nn.sizes.autoencoder_widths`.
        blocks: Residual blocks a level.
        output_channels: Channels of the result; None: those of the images.
        smooth: Whether sizes are doubled bilinearly, and convolutions over single pixels come last. Unfolded pixels
            come out of four filters, whose differences print a grid of 2 x 2 pixels (Odena et al. 2016).
    """

    def __init__(
        self,
        image_shape: ImageShape,
        widths: Sequence[int] | None,
        blocks: int,
        output_channels: int | None,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        widths = autoencoder_widths(*image_shape[1:]) if widths is None else widths
        self.padding = padding_to(*image_shape[1:], 2 ** len(widths))
        layers: list[nn.Module] = []
        outputs = channels_out(output_channels, image_shape[0])
        channels = [max(16, widths[0] // 4) if smooth else outputs, *widths]
        for level, (to_width, from_width) in reversed(list(enumerate(pairwise(channels)))):
            layers += [ResidualBlock(from_width) for _ in range(blocks)]
            layers += [nn.SiLU(), *(_smoothly if smooth else _folded)(level, from_width, to_width)]
        if smooth:
            convs = [nn.Conv2d(channels[0], width, 3, padding=1) for width in (channels[0], outputs)]
            layers += [convs[0], nn.SiLU(), convs[1]]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map the coarsest features (B, widths[-1], h, w)."""
        return F.pad(self.layers(x), [-side for side in self.padding])


def _folded(level: int, from_width: int, to_width: int) -> list[nn.Module]:
    return [_first_or_pointwise(level, from_width, 4 * to_width), nn.PixelShuffle(2)]


def _smoothly(level: int, from_width: int, to_width: int) -> list[nn.Module]:
    return [nn.Conv2d(from_width, to_width, 1), nn.Upsample(scale_factor=2, mode="bilinear")]


def _first_or_pointwise(level: int, from_width: int, to_width: int) -> nn.Conv2d:
    """Return a convolution that looks at neighbours at the finest level alone."""
    return nn.Conv2d(from_width, to_width, 1 if level else 3, padding="same")
