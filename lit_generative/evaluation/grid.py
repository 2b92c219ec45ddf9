"""Whether a network has printed a grid over its images: one of patches, or of pixels that were doubled."""

import torch
from torch import Tensor

from lit_generative.checks import check_count

__all__ = ["grid_strength"]


def grid_strength(images: Tensor, period: int = 2) -> float:
    """Return how much stronger images are in a pattern of so many pixels than beside it; about 1 or less: no stronger.

    It is the largest of two ratios, of rows and of columns. Patches that do not fit together have larger steps at
    their borders: the mean |difference| of neighbours at one of ``period`` phases over that at the others. Filters that
    differ from pixel to pixel of a patch print a texture: the power at the frequency 1 / period over the mean of that
    a quarter below and, where there is one, above it. Of photographs and drawings both are at most about 1.1.

    Args:
        images: (N, C, H, W), at least 4 ``period`` pixels a side; some hundreds, for a number that means something.
        period: The side of a patch, or the factor by which a layer enlarges.

    Raises:
        ValueError: If ``period`` is below 2, or the images are too small.
    """
    check_count("period", period, at_least=2, optional=False)
    if min(images.shape[2:]) < 4 * period:
        raise ValueError(f"period={period}: images of {tuple(images.shape[2:])} pixels are too small to show it")
    return max(
        ratio
        for lines in (images.double(), images.double().mT)
        for ratio in (_steps_at_borders(lines, period), _power_of_texture(lines, period))
    )


def _steps_at_borders(lines: Tensor, period: int) -> float:
    steps = lines.diff(dim=-1).abs().mean((0, 1, 2))
    steps = steps[: len(steps) // period * period].unflatten(0, (-1, period)).mean(0)  # by phase
    others = (steps.sum() - steps) / (period - 1)
    return float((steps / others.clamp(min=1e-12)).max())


def _power_of_texture(lines: Tensor, period: int) -> float:
    size = lines.shape[-1]
    window = torch.hann_window(size, periodic=False, dtype=lines.dtype, device=lines.device)
    centred = lines - lines.mean(-1, keepdim=True)
    places = torch.arange(size, dtype=lines.dtype, device=lines.device)

    def power(frequency: float) -> Tensor:
        angle = 2 * torch.pi * frequency * places
        waves = torch.stack([angle.cos(), angle.sin()], dim=1)
        return ((centred * window) @ waves).square().sum(-1).mean()

    beside = [share / period for share in (0.75, 1.25) if share / period <= 0.5]
    return float(power(1 / period) / torch.stack([*map(power, beside)]).mean().clamp(min=1e-12))
