"""Small things that several networks share."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lit_generative.checks import check_count

__all__ = ["channels_out", "draw_glorot", "hidden_layers"]


def hidden_layers(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Return fully connected layers from (B, sizes[0]) to (B, sizes[-1]), each followed by the activation."""
    return nn.Sequential(*[layer for i, o in pairwise(sizes) for layer in (nn.Linear(i, o), activation())])


def channels_out(output_channels: int | None, channels: int) -> int:
    """Return how many channels a decoder of images of ``channels`` puts out; None means as many."""
    check_count("output_channels", output_channels, hint="null makes it the images' channels")
    return channels if output_channels is None else output_channels


def draw_glorot(module: nn.Module) -> None:
    """Draw the weights of a linear layer or convolution by Glorot & Bengio 2010, eq. 16; biases are 0."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
