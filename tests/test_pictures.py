from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lit_generative import ImageDataModule
from lit_generative.pictures import (
    are_points,
    evenly_spaced,
    film,
    picture,
    save_csv,
    save_png,
    scatter,
    tile,
    to_uint8,
)


def test_every_level_survives_the_way_to_the_model_and_back() -> None:
    levels = torch.arange(256)
    assert torch.equal(to_uint8(levels / 127.5 - 1).long(), levels)
    assert torch.equal(to_uint8((levels / 127.5 - 1).bfloat16().float()).long().sub(levels).abs().le(1), levels >= 0)


def test_values_out_of_range_are_saturated() -> None:
    assert to_uint8(torch.tensor([-7.0, -1.001, 1.001, 7.0])).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_file_has_the_images_own_pixels_size_and_channels(tmp_path: Path, channels: int) -> None:
    image = next(iter(ImageDataModule().loader("test", batch_size=1)))["image"][0, :, :20]
    image = image.expand(channels, -1, -1) * torch.linspace(1, 0.5, channels)[:, None, None]
    save_png(image, tmp_path / "a" / "b" / "image.png")
    with Image.open(tmp_path / "a" / "b" / "image.png") as picture:
        assert picture.format == "PNG"
        assert picture.mode == {1: "L", 3: "RGB"}[channels]
        assert picture.size == (28, 20)
        pixels = torch.from_numpy(np.array(picture)).reshape(20, 28, channels).permute(2, 0, 1)
    assert torch.equal(pixels, to_uint8(image))


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_lie_row_by_row_with_black_lines_between(channels: int) -> None:
    images = torch.rand(5, channels, 4, 6) * 1.9 - 0.9
    picture = tile(images, columns=3)
    assert picture.shape == (channels, 2 * 4 + 2, 3 * 6 + 2 * 2)
    rest = picture.clone()
    for i, image in enumerate(images):
        row, column = divmod(i, 3)
        place = (slice(None), slice(row * 6, row * 6 + 4), slice(column * 8, column * 8 + 6))
        assert torch.equal(picture[place], image)
        rest[place] = -1
    assert (rest == -1).all()


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (2, 1), (10, 3), (64, 8)])
def test_a_grid_is_as_near_to_a_square_as_can_be(n: int, columns: int) -> None:
    assert tile(torch.zeros(n, 1, 8, 8)).shape[2] == 10 * columns - 2


@pytest.mark.parametrize(
    ("point", "row", "column"),
    [((-1, 1), 0, 0), ((1, 1), 0, 100), ((-1, -1), 100, 0), ((0, 0), 50, 50), ((0, 0.5), 25, 50)],
)
def test_a_dot_is_where_the_point_is(point: tuple[float, float], row: int, column: int) -> None:
    drawn = scatter(torch.tensor([point]), size=101)
    assert drawn.shape == (1, 101, 101)
    expected = torch.ones(101, 101)
    expected[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = -1
    assert torch.equal(drawn[0], expected)


def test_every_point_leaves_a_dot_and_broken_ones_none() -> None:
    points = torch.tensor([[0.5, 0.5], [-0.5, 0.5], [9.0, 0.0], [torch.nan, 0.0], [0.0, torch.inf]])
    drawn = scatter(points, size=101)[0]
    assert (drawn == -1).sum() == 9 + 9 + 6
    assert drawn[50, 100] == -1  # on the border
    assert (scatter(points[3:]) == 1).all()


def test_the_shape_decides_what_is_drawn() -> None:
    points, images = torch.rand(9, 2, 1, 1), torch.rand(9, 2, 4, 4)
    assert are_points(points)
    assert not are_points(images)
    assert torch.equal(picture(points, columns=3), scatter(points.flatten(1)))
    assert torch.equal(picture(images, columns=9), tile(images, columns=9))


def test_a_table_has_the_points_own_values(tmp_path: Path) -> None:
    points = torch.rand(7, 2, 1, 1) * 2 - 1
    save_csv(points, tmp_path / "a" / "points.csv")
    assert (tmp_path / "a" / "points.csv").read_text().startswith("x,y\n")
    found = np.loadtxt(tmp_path / "a" / "points.csv", delimiter=",", skiprows=1, dtype=np.float32)
    assert torch.equal(torch.from_numpy(found), points.flatten(1))


# ------------------------------------------------------------------ the way from noise to images


@pytest.mark.parametrize(("steps", "frames"), [(1, 10), (5, 10), (9, 10), (20, 5), (79, 10), (50, 7)])
def test_of_few_states_the_frames_are_as_even_as_can_be(steps: int, frames: int) -> None:
    found = [int(x) for x in evenly_spaced((torch.tensor(i) for i in range(steps + 1)), frames)]
    ideal = np.linspace(0, steps, min(frames, steps + 1))
    assert len(found) == len(ideal)
    assert np.abs(found - ideal).max() <= 0.5
    assert found[0] == 0
    assert found[-1] == steps


@pytest.mark.parametrize("steps", [81, 250, 1000, 1003])
def test_of_many_states_few_are_kept_and_nearly_the_right_ones(steps: int) -> None:
    alive: set[int] = set()
    most = 0

    class State:
        """Counts those that are kept, in place of a tensor."""

        def __init__(self, i: int) -> None:
            self.i = i

        def to(self, *args: Any, **kwargs: Any) -> "State":
            alive.add(id(copy := State(self.i)))
            return copy

        def __del__(self) -> None:
            alive.discard(id(self))

        def cpu(self) -> "State":
            return self

        float = cpu

    def states() -> Iterator[State]:
        nonlocal most
        for i in range(steps + 1):
            yield State(i)
            most = max(most, len(alive))

    found = [state.i for state in evenly_spaced(states(), 10)]  # type: ignore[arg-type, attr-defined]
    assert most <= 81
    assert len(found) == 10
    assert np.abs(found - np.linspace(0, steps, 10)).max() <= steps / 9 / 8 + 0.5
    assert (found[0], found[-1]) == (0, steps)


def test_states_that_a_sampler_overwrites_are_shown_as_they_were() -> None:
    def states() -> Iterator[Tensor]:
        x = torch.zeros(1, 1, 2, 2)
        for _ in range(3):
            yield x
            x += 1

    assert [float(x.mean()) for x in evenly_spaced(states(), 3)] == [0, 1, 2]


def test_noise_of_any_scale_is_visible_and_images_are_as_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, 16, 16, generator=generator)
    image = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    saturated = image.sign()  # the largest root mean square that an image has
    picture = film([80 * noise, noise * 2, image, saturated])
    assert picture.shape == (3, 2 * 18 - 2, 4 * 18 - 2)
    columns = [torch.cat([picture[:, :16, i : i + 16], picture[:, 18:, i : i + 16]]) for i in range(0, 72, 18)]
    torch.testing.assert_close(columns[0], columns[1])
    assert 0.25 < (columns[0].abs() == 1).float().mean() < 0.4  # what a normal variable has outside [-1, 1]: 0.32
    assert torch.equal(columns[2], image.flatten(0, 1))
    assert torch.equal(columns[3], saturated.flatten(0, 1))


def test_points_become_a_scatter_picture_a_moment() -> None:
    points = torch.tensor([[0.5, 0.5], [-0.5, -0.5]])[:, :, None, None]
    picture = film([points, 0 * points])
    assert picture.shape == (1, 256, 2 * 258 - 2)
    assert (picture[:, :, :256] == -1).sum() == 2 * 9
    assert (picture[:, :, 258:] == -1).sum() == 9


def test_a_diverged_way_has_a_picture_too() -> None:
    film([torch.full((2, 1, 4, 4), float("nan"))])
