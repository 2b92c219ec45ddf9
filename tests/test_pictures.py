from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_generative import ImageDataModule
from lit_generative.pictures import are_points, picture, save_csv, save_png, scatter, tile, to_uint8


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
