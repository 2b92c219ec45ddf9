"""Affine maps of images: exact where they can be, undone by their inverse, and told in full."""

import pytest
import torch
from torch import Tensor

from lit_generative.data import ImageDataModule
from lit_generative.diffusion import DDPM, ConditionalAugment
from lit_generative.gan import AdaptiveAugment, DiffAugment, GeometricAugment
from lit_generative.geometry import NUMBERS, draw_affine, warp
from lit_generative.nn import GrayCondition, UNet


@pytest.fixture(scope="module")
def images() -> Tensor:
    return next(iter(ImageDataModule(batch_size=64).loader("train")))["image"]


def matrix(rows: list[list[float]], n: int) -> Tensor:
    return torch.tensor(rows).repeat(n, 1, 1)


def inverse(matrices: Tensor) -> Tensor:
    corner = torch.tensor([0.0, 0.0, 1.0]).expand(len(matrices), 1, 3)
    return torch.linalg.inv(torch.cat([matrices, corner], 1))[:, :2]


@pytest.mark.parametrize("shape", [(28, 28), (28, 20), (15, 28)])
def test_mirror_images_turns_and_shifts_by_pixels_are_exact(images: Tensor, shape: tuple[int, int]) -> None:
    x = images[..., : shape[0], : shape[1]]
    n = len(x)
    assert torch.equal(warp(x, matrix([[-1, 0, 0], [0, 1, 0]], n)), x.flip(3))
    assert torch.equal(warp(x, matrix([[1, 0, 0], [0, -1, 0]], n)), x.flip(2))
    moved = warp(x, matrix([[1, 0, -3], [0, 1, 0]], n))
    assert torch.equal(moved[..., 3:], x[..., :-3])
    assert torch.equal(moved[..., :3], x[..., :3].flip(3))  # what comes in is the reflection


def test_a_map_is_undone_by_its_inverse(images: Tensor) -> None:
    torch.manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(images, 9, 1, 4)  # interpolation loses what is fine
    matrices, _ = draw_affine(smooth, 0.7)
    back = warp(warp(smooth, matrices), inverse(matrices))[..., 9:-9, 9:-9]
    untouched = (smooth[..., 9:-9, 9:-9] - back).abs().mean()
    changed = (smooth - warp(smooth, matrices))[..., 9:-9, 9:-9].abs().mean()
    assert untouched < 0.5 * changed


def test_nothing_is_told_of_images_that_nothing_is_done_to_and_something_of_others(images: Tensor) -> None:
    torch.manual_seed(0)
    matrices, numbers = draw_affine(images, 0.1)
    assert numbers.shape == (len(images), NUMBERS)
    is_told = (numbers != 0).any(1)
    is_moved = (matrices != torch.eye(2, 3)).flatten(1).any(1)
    assert torch.equal(is_told, is_moved)
    assert is_told.any()
    assert torch.equal(warp(images, matrices)[~is_told], images[~is_told])
    assert warp(images, draw_affine(images, 0.0)[0]) is images


def test_maps_are_differentiable_twice(images: Tensor) -> None:
    torch.manual_seed(0)
    x = images[:4, :, :6, :5].double().requires_grad_()
    matrices, _ = draw_affine(x, 1.0)
    assert torch.autograd.gradgradcheck(lambda x: warp(x, matrices).pow(3), x)


def model(probability: float | None, augmentations: int = NUMBERS) -> DDPM:
    network = UNet((1, 28, 28), [16, 16], 1, [], groups=8, patch=2, augmentations=augmentations, num_classes=3)
    return DDPM(network, (1, 28, 28), augment=ConditionalAugment(probability), num_classes=3)


def test_the_network_is_told_in_training_alone(images: Tensor) -> None:
    torch.manual_seed(0)
    told: list[Tensor | None] = []
    ddpm, labels = model(1.0), torch.arange(8) % 3

    def look(_: object, inputs: tuple[Tensor | None, ...]) -> None:
        told.append(inputs[3] if len(inputs) > 3 else None)
        assert inputs[2] is not None
        assert torch.equal(inputs[2], labels)

    ddpm.network.register_forward_pre_hook(look)
    ddpm.train().losses(images[:8], labels)
    ddpm.eval().losses(images[:8], labels)
    ddpm.sampler.steps = 2  # type: ignore[attr-defined]
    ddpm.sample(8, labels)
    assert told[0] is not None
    assert told[0].any()
    assert told[1:] == [None] * len(told[1:])


def test_zeros_mean_no_augmentation_to_the_network(images: Tensor) -> None:
    torch.manual_seed(0)
    network = model(1.0).network
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    t, y = torch.rand(4), torch.zeros(4, dtype=torch.long)
    plain = network(images[:4], t, y)
    assert torch.equal(network(images[:4], t, y, torch.zeros(4, NUMBERS)), plain)
    assert not torch.allclose(network(images[:4], t, y, torch.ones(4, NUMBERS)), plain)


def settled(augment: ConditionalAugment, num_images: int | None) -> float:
    augment.settle(num_images)
    return augment.chance


def test_fewer_images_are_augmented_more_and_a_given_chance_stays() -> None:
    chances = [settled(ConditionalAugment(), n) for n in (10, 1_000, 10_000, 100_000, None)]
    assert chances[:-1] == sorted(set(chances), reverse=True)
    assert chances[-2:] == [0, 0]
    assert settled(ConditionalAugment(0.4), 100_000) == 0.4
    with pytest.raises(ValueError, match="probability=2"):
        ConditionalAugment(2)


def test_images_are_moved_once_they_have_been_seen_often() -> None:
    augment = ConditionalAugment()
    augment.settle(1_000)
    chances = [augment.at(passes * 1_000) for passes in (0, 30, 65, 100, 900)]
    assert chances == pytest.approx([0, 0, 0.06, 0.12, 0.12])
    x = torch.rand(8, 3, 8, 8)
    same, numbers = augment(x, images_seen=20_000)
    torch.testing.assert_close(same, x)
    assert not numbers.any()
    assert augment(x, images_seen=500_000)[1].any()
    given = ConditionalAugment(0.4)
    given.settle(1_000)
    assert given.at(0) == 0.4


def test_moved_images_would_not_fit_a_condition_that_is_an_image() -> None:
    condition = GrayCondition()
    network = UNet((3, 8, 8), [16], groups=8, attention=[], augmentations=9, condition=condition)
    with pytest.raises(ValueError, match=r"augment=ConditionalAugment.*GrayCondition.*leave augment out"):
        DDPM(network, (3, 8, 8), augment=ConditionalAugment(0.2), condition=condition)


def test_adaptive_augmentation_goes_no_further_than_its_limit(images: Tensor) -> None:
    augment = AdaptiveAugment(GeometricAugment(), horizon=100, limit=0.8)
    assert torch.equal(augment(images), images)
    for _ in range(30):
        augment.observe(torch.ones(50), 50)
    assert float(augment.probability) == pytest.approx(0.8)
    assert not torch.equal(augment(images), images)
    with pytest.raises(ValueError, match="limit=0"):
        AdaptiveAugment(DiffAugment(), limit=0)
