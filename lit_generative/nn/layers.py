"""What several networks share."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F

__all__ = [
    "ChannelNorm",
    "ClassEmbedding",
    "ImageShape",
    "ProjectionHead",
    "ResidualBlock",
    "channels_out",
    "diagonal_normal",
    "hidden_layers",
    "levels_down",
    "levels_up",
    "num_parameters",
    "posterior_of",
]

ImageShape = tuple[int, int, int]


class ClassEmbedding(nn.Module):
    """A learned vector per class, added to features; zero at first, and for good without classes.

    Args:
        num_classes: How many classes there are; None makes it the constant 0.
        dim: The size of a vector.
    """

    def __init__(self, num_classes: int | None, dim: int) -> None:
        super().__init__()
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, dim)
        if self.embedding is not None:
            nn.init.zeros_(self.embedding.weight)

    def forward(self, features: Tensor, y: Tensor | None) -> Tensor:
        """Add the vectors of the classes ``y`` (B,) to ``features`` (B, dim)."""
        if self.embedding is None:
            return features
        return features + self.embedding(require_labels(y))


class ProjectionHead(nn.Module):
    """The logit w.phi + b + v_y.phi of features phi (projection discriminator, Miyato & Koyama 2018, eq. 3).

    Args:
        features: The size of phi.
        num_classes: How many classes there are; None leaves the last term out.
    """

    def __init__(self, features: int, num_classes: int | None) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, features)
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=features**-0.5)

    def forward(self, phi: Tensor, y: Tensor | None) -> Tensor:
        """Return logits (B,), float32, of features (B, features) and classes (B,)."""
        weight = self.linear.weight  # (1, features)
        if self.embedding is not None:
            weight = weight + self.embedding(require_labels(y))  # (B, features)
        # self.linear(phi) would be bf16 under autocast: too coarse for losses that take differences of large logits
        return (phi.float() * weight).sum(1) + self.linear.bias


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


def require_labels(y: Tensor | None) -> Tensor:
    """Return the labels that a class-conditional network needs."""
    if y is None:
        raise ValueError("y=None: a class-conditional network (num_classes is set) needs a label per image")
    return y


def hidden_layers(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return fully connected layers from (B, sizes[0]) to (B, sizes[-1]), each followed by the activation."""
    return nn.Sequential(*[layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), activation())])


def diagonal_normal(parameters: Tensor) -> Independent:
    """Split (B, 2 * dim) into a mean and a log-variance: N(mean, diag(exp(log-variance))), event shape (dim,)."""
    mean, log_variance = parameters.float().chunk(2, dim=1)
    scale = torch.exp(0.5 * log_variance.clamp(-20, 20))  # a bound that no trained posterior meets; keeps KLs finite
    return Independent(Normal(mean, scale, validate_args=False), 1)


def levels_down(channels: int, widths: Sequence[int], blocks: int) -> nn.Sequential:
    """Return layers from images to ``widths[-1]`` channels at 1/2^len(widths) of their size, by residual blocks."""
    levels: list[nn.Module] = []
    for level, to_width in enumerate(widths):
        from_width = 4 * (widths[level - 1] if level else channels)
        levels += [nn.PixelUnshuffle(2), nn.Conv2d(from_width, to_width, 3 if level == 0 else 1, padding="same")]
        levels += [ResidualBlock(to_width) for _ in range(blocks)]
    return nn.Sequential(*levels)


def levels_up(channels: int, widths: Sequence[int], blocks: int) -> nn.Sequential:
    """Return the mirror image of :func:`levels_down`, from ``widths[-1]`` channels to ``channels``."""
    levels: list[nn.Module] = []
    for level, from_width in reversed(list(enumerate(widths))):
        to_width = 4 * (widths[level - 1] if level else channels)
        levels += [ResidualBlock(from_width) for _ in range(blocks)]
        levels += [nn.SiLU(), nn.Conv2d(from_width, to_width, 3 if level == 0 else 1, padding="same")]
        levels += [nn.PixelShuffle(2)]
    return nn.Sequential(*levels)


def num_parameters(posterior: nn.Module | None, latent_dim: int) -> int:
    """Return how many numbers an encoder puts out for :func:`posterior_of`: 2 * latent_dim for None."""
    return 2 * latent_dim if posterior is None else cast(Any, posterior).num_parameters(latent_dim)


def posterior_of(posterior: nn.Module | None, parameters: Tensor) -> Distribution:
    """Return q(z|x) of an encoder's outputs (B, num_parameters): :func:`diagonal_normal` for None."""
    return diagonal_normal(parameters) if posterior is None else posterior(parameters)


def channels_out(output_channels: int | None, channels: int) -> int:
    """Return how many channels a decoder of images of ``channels`` puts out; None means as many.

    Raises:
        ValueError: If there would be none.
    """
    if output_channels is not None and output_channels < 1:
        raise ValueError(f"output_channels={output_channels}: it must be at least 1, or null for the images' channels")
    return channels if output_channels is None else output_channels
