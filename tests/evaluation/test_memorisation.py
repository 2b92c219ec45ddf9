"""Copies of training images are found, and images that are merely good are not."""

import pytest
import torch
from stand_ins import images_and_labels

from lit_generative.data import ImageDataModule
from lit_generative.evaluation.memorisation import nearest_neighbours


@pytest.fixture(scope="module")
def training():
    return images_and_labels(ImageDataModule(subset=2000), "train", 2000)[0]


def neighbours(images, training, size=1000):
    return nearest_neighbours(images, training.split(size))


def test_distances_and_images_are_those_of_a_direct_search(training):
    images, training = training[:40] * 0.9, training[20:520]
    direct = (images[:, None] - training[None]).flatten(2).double().norm(dim=2)
    found = neighbours(images, training)
    torch.testing.assert_close(found.distances, direct.topk(2, largest=False).values, rtol=1e-6, atol=1e-6)
    assert torch.equal(found.images, training[direct.argmin(dim=1)])


@pytest.mark.parametrize("size", [1, 7, 3000])
def test_batches_do_not_matter(training, size):
    images, training = training[:30] + 0.1, training[:400]
    whole, parts = neighbours(images, training), neighbours(images, training, size)
    torch.testing.assert_close(parts.distances, whole.distances)
    assert torch.equal(parts.images, whole.images)


def test_more_images_than_a_block_are_all_compared(training):
    found = neighbours(training, training)
    assert found.distances[:, 0].max() < 1e-5
    assert found.rate == 1


def test_copies_are_copies_and_held_out_images_are_not(training, real_images, data):
    held_out = neighbours(real_images[0], training)
    assert held_out.rate <= 0.004  # of 500; there are near duplicates in Fashion-MNIST
    copies = neighbours(training[:500], training)
    assert copies.rate == 1
    assert copies.relative_distance(held_out) == pytest.approx(0, abs=1e-5)
    assert held_out.relative_distance(held_out) == 1
    other = neighbours(images_and_labels(data, "val", 500)[0], training)
    assert other.relative_distance(held_out) == pytest.approx(1, abs=0.06)


def test_noisy_copies_are_found_as_far_as_the_paper_says(training):
    noise = torch.randn(200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = neighbours(training[:200] + 0.05 * noise, training)  # at 1.4, where others are at 8 and more
    assert found.rate > 0.95
    assert torch.equal(found.is_copy, found.distances[:, 0] * 3 < found.distances[:, 1])
    assert neighbours(training[:200] + 0.4 * noise, training).rate == 0


def test_copies_of_images_that_occur_twice_count(training):
    images, twice = training[:50], torch.cat([training[:500], training[:500]])
    assert neighbours(images, twice).rate == 1  # by the ratio of the distances alone, 0/0, it would be 0
    rounding = (torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) - 0.5) * 2 / 255
    assert neighbours(images + rounding, twice).rate == 1
    assert neighbours(images + 3 * rounding, twice).rate == 0


def test_by_chance_the_ratio_is_below_a_third_once_in_three_to_the_dimensions():
    generator = torch.Generator().manual_seed(0)
    points, training = (1000 * torch.rand(n, 2, 1, 1, generator=generator) for n in (4000, 3000))
    found = nearest_neighbours(points, [training])
    assert found.rate == pytest.approx(1 / 9, abs=0.02)


def test_one_training_image_alone_is_no_measure_of_copying():
    found = nearest_neighbours(torch.tensor([0.0, 0.5]).view(2, 1, 1, 1), [torch.zeros(1, 1, 1, 1)])
    assert found.is_copy.tolist() == [True, False]


def test_what_cannot_be_searched_is_an_error(training):
    with pytest.raises(
        ValueError, match=r"images has shape \(3, 1, 14, 14\), training images \(1, 28, 28\); make them"
    ):
        neighbours(torch.zeros(3, 1, 14, 14), training)
    with pytest.raises(ValueError, match="images has no image in it"):
        neighbours(training[:0], training)
    with pytest.raises(ValueError, match="training has no images; give at least one batch"):
        nearest_neighbours(training[:3], [])
