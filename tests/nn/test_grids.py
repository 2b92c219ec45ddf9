"""No network prints a grid before it has learned one, and nets are sized by images of any size."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lit_generative.data import ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.evaluation.grid import grid_strength
from lit_generative.nn import (
    ConvDecoder,
    ConvEncoder,
    DCGANDiscriminator,
    DCGANGenerator,
    ResidualGenerator,
    SpatialDecoder,
    UNet,
)
from lit_generative.nn.sizes import unet_sizes

SHAPES = [(1, 16, 16), (3, 28, 28), (3, 32, 32), (3, 64, 64), (3, 96, 64), (3, 45, 70), (1, 128, 128)]
LIMIT = 1.4


def unet(shape: tuple[int, int, int], **options: object) -> UNet:
    options = {"widths": None, "attention": None, "patch": None, "pixel_width": 16} | options
    return UNet(shape, blocks=1, head_dim=32, groups=16, augmentations=9, **options)  # type: ignore[arg-type]


def drawn_by_vae(smooth: bool) -> Tensor:
    decoder = ConvDecoder((3, 32, 32), 16, widths=None, smooth=smooth)
    return decoder(torch.randn(32, 16))


def drawn_by_codes(smooth: bool) -> Tensor:
    return SpatialDecoder((3, 32, 32), 8, smooth=smooth)(torch.randn(32, 8, 8, 8))


def drawn_by_gan(smooth: bool) -> Tensor:
    return DCGANGenerator((3, 32, 32), 16, smooth=smooth)(torch.randn(32, 16))


def drawn_by_residual_gan(smooth: bool) -> Tensor:
    return ResidualGenerator((3, 32, 32), 16, smooth=smooth)(torch.randn(32, 16))


def drawn_by_unet(smooth: bool) -> Tensor:
    network = unet((3, 32, 32), pixel_width=16 if smooth else None)
    last = network.head if network.pixels is None else network.pixels.last
    nn.init.normal_(last.weight, std=0.1)  # which starts at 0
    return network(torch.randn(32, 3, 32, 32), torch.rand(32))


@pytest.mark.parametrize("draw", [drawn_by_vae, drawn_by_codes, drawn_by_gan, drawn_by_residual_gan, drawn_by_unet])
def test_smooth_networks_start_without_a_grid(draw: Callable[[bool], Tensor]) -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        assert grid_strength(draw(True)) < LIMIT
        assert grid_strength(draw(False)) > 2 * LIMIT  # of folded pixels and transposed convolutions


def test_a_grid_is_measured_whatever_its_phase() -> None:
    images = next(iter(ImageDataModule(batch_size=200).loader("val")))["image"]
    assert grid_strength(images) < 1.2
    for rows, columns in ((0, 0), (1, 0), (0, 1)):
        printed = images.clone()
        printed[..., rows::2, columns::2] += 0.3
        assert grid_strength(printed) > 2 * LIMIT
    blocks = images[..., ::4, ::4].repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert grid_strength(blocks.roll(1, 3), 4) > 10
    with pytest.raises(ValueError, match="period=16"):
        grid_strength(images, 16)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_networks_sized_by_images_are_trained_at_any_size(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(2, *shape), torch.tensor([0, 1])
    networks: list[tuple[nn.Module, tuple[Tensor, ...], tuple[int, ...]]] = [
        (unet(shape, num_classes=2), (x, torch.rand(2), y, torch.zeros(2, 9)), x.shape),
        (ConvDecoder(shape, 8, widths=None, num_classes=2, smooth=True), (torch.randn(2, 8), y), x.shape),
        (DCGANGenerator(shape, 8, num_classes=2, smooth=True), (torch.randn(2, 8), y), x.shape),
        (DCGANDiscriminator(shape, batch_norm=False, num_classes=2), (x, y), (2,)),
    ]
    for network, arguments, expected in networks:
        output = network(*arguments)
        assert output.shape == expected
        (output + 1).square().sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    q = ConvEncoder(shape, 8, widths=None, dropout=0.1, num_classes=2)(x, y)
    assert q.mean.shape == (2, 8)


def test_larger_images_get_larger_patches_sixteen_at_most() -> None:
    for side in (8, 16, 17, 20, 28, 32, 48, 64, 96, 128, 256):
        patch, widths, attention = unet_sizes(side, 2 * side)
        assert -(-side // patch) <= 16
        assert patch == 1 or -(-side // (patch // 2)) > 16  # no larger than needed
        assert (len(widths), attention) == (2, [])
    assert unet_sizes(96, 64) == unet_sizes(64, 96) == unet_sizes(64, 64)


def test_what_was_chosen_by_size_is_in_the_description() -> None:
    network = UNet((1, 40, 24), widths=None, attention=None, patch=None, blocks=1, groups=16)
    patch, widths, attention = unet_sizes(40, 24)
    sizes = {"patch": patch, "widths": widths, "attention": attention}
    assert describe(network)["init_args"] | sizes == describe(network)["init_args"]
    assert rebuild(describe(network)).load_state_dict(network.state_dict())


def test_a_network_that_is_told_nothing_refuses_an_augmentation() -> None:
    network = UNet((1, 8, 8), widths=[16, 16], blocks=1, attention=[], groups=8)
    with pytest.raises(ValueError, match="augmentations=0"):
        network(torch.zeros(1, 1, 8, 8), torch.zeros(1), None, torch.zeros(1, 9))
