"""What is drawn of images and their nearest training images."""

import pytest
import torch

from lit_generative import ImageDataModule
from lit_generative.comparison.real_images import RealImages, draw_pictures
from lit_generative.evaluation import Evaluator
from lit_generative.pictures import tile


@pytest.fixture(scope="module")
def real():
    return RealImages.of(ImageDataModule(subset=200), Evaluator(num_samples=50, num_real=50))


def test_the_first_images_are_drawn_as_they_are(real):
    assert torch.equal(draw_pictures(real.images, None)["samples"], tile(real.images[:36]))
    assert draw_pictures(real.images, None).keys() == {"samples"}


def test_an_image_is_above_its_nearest_training_image_in_a_white_frame(real):
    picture = draw_pictures(real.images, real.neighbours)["nearest"]
    left = 28 + 4 + 2 + 2  # a frame of two pixels on each side, and the line between the pairs
    assert torch.equal(picture[:, 2:30, left : left + 28], real.images[1])
    assert torch.equal(picture[:, 32:60, left : left + 28], real.neighbours.images[1])
    assert (picture[:, :2, left : left + 28] == 1).all()


def test_points_of_the_plane_are_scattered():
    assert draw_pictures(torch.rand(9, 2, 1, 1), None)["samples"].shape == (1, 256, 256)
