import math

import pytest
import torch
from torch import Tensor

from lit_generative.interpolation import linear, spherical


@pytest.fixture
def ends() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("path", [linear, spherical])
def test_ends_are_the_given_ones(path, ends: tuple[Tensor, Tensor]) -> None:
    points = path(*ends, 7)
    assert points.shape == (7, 5, 3, 4, 4)
    torch.testing.assert_close(points[0], ends[0])
    torch.testing.assert_close(points[-1], ends[1])


def test_a_line_moves_evenly(ends: tuple[Tensor, Tensor]) -> None:
    points = linear(*ends, 5)
    torch.testing.assert_close(points[2], (ends[0] + ends[1]) / 2)
    torch.testing.assert_close(points.diff(dim=0), ((ends[1] - ends[0]) / 4).expand(4, *ends[0].shape))


def test_a_quarter_of_a_circle() -> None:
    east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    angles = torch.tensor([0, 30, 60, 90]) * math.pi / 180
    torch.testing.assert_close(spherical(east, north, 4)[:, 0], torch.stack([angles.cos(), angles.sin()], dim=1))


def test_directions_turn_evenly_and_norms_change_linearly(ends: tuple[Tensor, Tensor]) -> None:
    points = spherical(ends[0], 3 * ends[1], 6).flatten(2)  # (6, 5, 48)
    norms = points.norm(dim=2)
    torch.testing.assert_close(norms, linear(norms[0], norms[-1], 6))
    turns = torch.cosine_similarity(points[1:], points[:-1], dim=2).acos()
    torch.testing.assert_close(turns, turns[:1].expand_as(turns))


def test_norms_of_a_sphere_are_kept_where_a_line_leaves_it(ends: tuple[Tensor, Tensor]) -> None:
    unit = [z.flatten(1) / z.flatten(1).norm(dim=1, keepdim=True) for z in ends]
    torch.testing.assert_close(spherical(*unit, 9).norm(dim=2), torch.ones(9, 5).double())
    assert (linear(*unit, 9)[4].norm(dim=1) < 0.9).all()


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0, 0.0])
def test_parallel_latents_are_joined_by_a_line(factor: float) -> None:
    z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spherical(z, factor * z, 5), linear(z, factor * z, 5))


@pytest.mark.parametrize("path", [linear, spherical])
def test_a_path_of_one_point_is_refused(path) -> None:
    with pytest.raises(ValueError, match="steps=1: it must be at least 2"):
        path(torch.ones(1, 2), torch.zeros(1, 2), 1)
