"""What several networks share."""

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import functional as F

__all__ = ["ClassEmbedding", "ImageShape", "ResidualBlock", "diagonal_normal"]

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
        if y is None:
            raise ValueError("y=None: a class-conditional network (num_classes is set) needs a label per image")
        return features + self.embedding(y)


class ResidualBlock(nn.Module):
    """x + conv(act(conv(act(x)))), of unchanged shape (B, C, H, W).

    The last convolution starts at zero, so that the block starts as the identity and needs no normalisation
    (SkipInit, De & Smith 2020): normalisation layers cost as much as the convolutions on a CPU.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def diagonal_normal(parameters: Tensor) -> Independent:
    """Split (B, 2 * dim) into a mean and a log-variance: N(mean, diag(exp(log-variance))), event shape (dim,)."""
    mean, log_variance = parameters.float().chunk(2, dim=1)
    scale = torch.exp(0.5 * log_variance.clamp(-20, 20))  # a bound that no trained posterior meets; keeps KLs finite
    return Independent(Normal(mean, scale, validate_args=False), 1)
