"""Random affine maps of images: mirrored, scaled, turned, stretched and shifted, drawn for each image by itself.

Those of Karras et al. 2022, appendix F.2 and table 6, each with its own chance. Pixels are interpolated by plain
indexing, which may be differentiated twice, as penalties on gradients need; torch's ``grid_sample`` may not. What comes
in from beyond the edges is the image's reflection.
"""

from math import pi

import torch
from torch import Tensor

__all__ = ["NUMBERS", "draw_affine", "warp"]

NUMBERS = 9
"""How many numbers say what a map is."""

_SCALE = 0.2  # log2 of a scale, for one standard deviation
_SHIFT = 0.125  # share of the side, for one standard deviation


def draw_affine(
    x: Tensor, probability: float | Tensor, *, mirror: bool = True, upside_down: bool = True
) -> tuple[Tensor, Tensor]:
    """Draw a map for each image.

    Args:
        x: Images (B, C, H, W).
        probability: The chance of each of the maps' parts; of those of a mirror image it is half.
        mirror: Whether images may be mirrored left to right.
        upside_down: Whether they may be mirrored top to bottom.

    Returns:
        The matrices (B, 2, 3), from places in the result to those in the image, in pixels from the centre, and what
        they are made of, (B, 9): whether mirrored left to right and top to bottom, the scale's logarithm, cosine - 1
        and sine of the turn, the stretch along its direction, and the shift right and down. All 9 are 0 of an image
        that nothing is done to.
    """
    n, device = len(x), x.device

    def part(values: Tensor) -> Tensor:
        return values * (torch.rand(n, device=device) < probability)

    def coin() -> Tensor:
        return torch.randint(2, (n,), device=device).float()

    def normal() -> Tensor:
        return torch.randn(n, device=device)

    def angle() -> Tensor:
        return (torch.rand(n, device=device) * 2 - 1) * pi

    flips = [part(coin()) * allowed for allowed in (mirror, upside_down)]
    scale, turn, stretch = part(normal()), part(angle()), part(normal())
    direction = angle() * (stretch != 0)  # turned there and back, rounding would be left
    shifted = torch.rand(n, device=device) < probability
    right, down = normal() * shifted, normal() * shifted
    stretched = [stretch * direction.cos(), stretch * direction.sin()]
    numbers = torch.stack([*flips, scale, turn.cos() - 1, turn.sin(), *stretched, right, down], dim=1)
    linear = _diagonal(1 - 2 * flips[0], 1 - 2 * flips[1]) @ _diagonal(*[(-_SCALE * scale).exp2()] * 2)
    linear = linear @ _rotation(-turn) @ _rotation(direction)
    linear = linear @ _diagonal((-_SCALE * stretch).exp2(), (_SCALE * stretch).exp2()) @ _rotation(-direction)
    sides = torch.tensor([x.shape[3], x.shape[2]], device=device)
    offset = linear @ (-_SHIFT * torch.stack([right, down], dim=1) * sides)[:, :, None]
    return torch.cat([linear, offset], dim=2), numbers


def warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Return the images (B, C, H, W) that maps (B, 2, 3) make of images, interpolated between the nearest four pixels.

    Their type is kept, and so are the very values of images that are mapped to themselves.
    """
    identity = torch.eye(2, 3, device=x.device)
    is_moved = (matrix != identity).flatten(1).any(dim=1)
    if not is_moved.any():
        return x
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device) - (height - 1) / 2
    columns = torch.arange(width, device=x.device) - (width - 1) / 2
    places = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width), torch.ones_like(x[0, 0])])
    found = matrix.float() @ places.float().flatten(1)  # (B, 2, HW)
    across, right = _between(found[:, 0] + (width - 1) / 2, width)
    along, below = _between(found[:, 1] + (height - 1) / 2, height)
    pixels, moved = x.flatten(2), torch.zeros_like(x.flatten(2))
    for row, by_row in zip(along, (1 - below, below), strict=True):
        for column, by_column in zip(across, (1 - right, right), strict=True):
            index = (row * width + column)[:, None].expand(-1, x.shape[1], -1)
            moved = moved + pixels.gather(2, index) * (by_row * by_column)[:, None].to(x.dtype)
    return torch.where(is_moved[:, None, None, None], moved.view(x.shape), x)


def _between(place: Tensor, size: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the pixels on both sides of places, reflected at the image's edges, and the second one's share."""
    place = (place + 0.5).remainder(2 * size)
    place = (torch.where(place < size, place, 2 * size - place) - 0.5).clamp(0, size - 1)
    first = place.floor()
    return (first.long(), (first.long() + 1).clamp(max=size - 1)), place - first


def _diagonal(first: Tensor, second: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([first, second], dim=1))


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).unflatten(1, (2, 2))
