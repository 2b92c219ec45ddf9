"""Times, places and classes as features."""

from abc import ABC, abstractmethod
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.description import Described

__all__ = [
    "ClassEmbedding",
    "StepPosition",
    "TimeEmbedding",
    "TimePosition",
    "check_times",
    "grid_sinusoids",
    "require_labels",
    "sinusoids",
]


def sinusoids(position: Tensor, dim: int, shift: float = 0.0) -> Tensor:
    """Return [sin(w_k p), cos(w_k p)] with w_k = 10000^(-k / (dim/2 - shift)), k = 0, ..., dim/2 - 1.

    Vaswani et al. 2017, section 3.5, with all sines before all cosines.

    Args:
        position: p, of shape (...).
        dim: Features, an even number.
        shift: 0 in most implementations, 1 in that of Ho et al. 2020, whose lowest frequency is 1/10000 exactly.

    Returns:
        (..., dim), float32.
    """
    k = torch.arange(dim // 2, device=position.device, dtype=torch.float32)
    angles = position.float()[..., None] * torch.exp(-log(10000) / max(dim // 2 - shift, 1) * k)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def grid_sinusoids(grid: tuple[int, ...], dim: int, device: torch.device | None = None) -> Tensor:
    """Return (rows * columns, dim), the sinusoids of each place of a grid, half of its row and half of its column."""
    rows, columns = (sinusoids(torch.arange(size, device=device), dim // 2) for size in grid)
    return torch.cat([rows[:, None].expand(-1, grid[1], -1), columns.expand(grid[0], -1, -1)], dim=2).flatten(0, 1)


def check_times(x: Tensor, t: Tensor) -> None:
    """Refuse times that are not one number in [0, 1] for each image (their values are not looked at)."""
    if not t.is_floating_point():
        raise ValueError(f"t is {t.dtype}: give times in [0, 1]; step i of DDPM's 1,000 is (i + 1) / 1000")
    if t.shape != x.shape[:1]:
        raise ValueError(f"t has the shape {tuple(t.shape)}: give one time per image, here ({len(x)},)")


class TimePosition(Described, ABC):
    """What a network is told of the time t in [0, 1]: a number, whose sinusoids are its features."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Tensor:
        """Return the positions of times ``t`` (B,), (B,), float32."""


class StepPosition(TimePosition):
    """1000 t - 1: the i-th of DDPM's 1,000 steps, i = 0, ..., 999, is t = (i + 1) / 1000.

    Its sinusoids are those of the integer i that Ho et al.'s implementation and diffusers use.
    """

    def __call__(self, t: Tensor) -> Tensor:
        """Return the number of the step, which need not be whole."""
        return 1000 * t.float() - 1


class TimeEmbedding(nn.Module):
    """Features of the time t in [0, 1]: sinusoids of a position, then linear, SiLU, linear (Ho et al. 2020, app. B).

    It stays out of autocast: bf16 cannot tell neighbouring times apart, and these layers cost next to nothing.

    Args:
        frequencies: The number of sinusoids, even.
        features: The size of the result.
        shift: See :func:`sinusoids`.
        position: The position. None: :class:`StepPosition`.

    Raises:
        ValueError: If ``frequencies`` is odd.
    """

    def __init__(
        self, frequencies: int, features: int, shift: float = 0.0, position: TimePosition | None = None
    ) -> None:
        super().__init__()
        if frequencies < 2 or frequencies % 2:
            raise ValueError(f"frequencies={frequencies}: each comes as a sine and a cosine; take an even number")
        self.frequencies = frequencies
        self.shift = shift
        self.position = position or StepPosition()
        self.first = nn.Linear(frequencies, features)
        self.second = nn.Linear(features, features)

    def forward(self, t: Tensor) -> Tensor:
        """Return features (B, features) of times (B,)."""
        with torch.autocast(t.device.type, enabled=False):
            waves = sinusoids(self.position(t), self.frequencies, self.shift)
            return self.second(F.silu(self.first(waves.to(self.first.weight.dtype))))


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
        """Add the vectors of the classes ``y`` (B,) to ``features`` (B, dim, ...), everywhere the same."""
        if self.embedding is None:
            return features
        vectors = self.embedding(require_labels(y))
        return features + vectors.view(*vectors.shape, *[1] * (features.ndim - 2))


def require_labels(y: Tensor | None) -> Tensor:
    """Return the labels that a class-conditional network needs."""
    if y is None:
        raise ValueError("y=None: a class-conditional network (num_classes is set) needs a label per image")
    return y
