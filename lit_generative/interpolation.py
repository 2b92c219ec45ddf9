"""Paths between latents."""

import torch
from torch import Tensor

from lit_generative.checks import check_count

__all__ = ["linear", "spherical"]


def linear(z_0: Tensor, z_1: Tensor, steps: int) -> Tensor:
    """Return z_0 + s (z_1 - z_0) at ``steps`` even s in [0, 1], (steps, *z_0.shape), ends included.

    Raises:
        ValueError: If ``steps`` is below 2.
    """
    return torch.stack([torch.lerp(z_0, z_1, s) for s in _places(steps)])


def spherical(z_0: Tensor, z_1: Tensor, steps: int) -> Tensor:
    """Return the great arc from z_0 to z_1 (Shoemake 1985; White 2016, "Sampling Generative Networks", section 2.1).

    Latents of a normal prior lie near a sphere, which a straight line leaves: its middle is less likely than its ends.
    Directions turn at an even pace, norms change linearly; (anti)parallel latents are joined by the straight line.

    Args:
        z_0: The beginnings, (B, ...); each is one latent.
        z_1: The ends, of the same shape.
        steps: Points of each path, ends included.

    Returns:
        (steps, B, ...).

    Raises:
        ValueError: If ``steps`` is below 2.
    """
    shape, (z_0, z_1) = z_0.shape, (z_0.flatten(1), z_1.flatten(1))
    norm_0, norm_1 = z_0.norm(dim=1, keepdim=True), z_1.norm(dim=1, keepdim=True)
    u_0, u_1 = z_0 / norm_0, z_1 / norm_1
    angle = (u_0 * u_1).sum(dim=1, keepdim=True).clamp(-1, 1).acos()
    points = []  # sines below 2e-3 may be rounding errors of a cosine near 1 or -1
    for s in _places(steps):
        direction = ((1 - s) * angle).sin() / angle.sin() * u_0 + (s * angle).sin() / angle.sin() * u_1
        arc = direction * torch.lerp(norm_0, norm_1, s)
        points.append(arc.where(angle.sin() > 2e-3, torch.lerp(z_0, z_1, s)).view(shape))
    return torch.stack(points)


def _places(steps: int) -> list[float]:
    check_count("steps", steps, at_least=2, hint="a path has its ends")
    return torch.linspace(0, 1, steps).tolist()
