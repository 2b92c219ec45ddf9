"""Networks between images and grids of features: any size, with labels and without."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_generative import ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.nn import SpatialDecoder, SpatialEncoder

WIDTHS = (8, 12)


@pytest.fixture(scope="module")
def clothes() -> torch.Tensor:
    return next(iter(ImageDataModule().loader("test", batch_size=5)))["image"]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 20, 13), (1, 5, 64), (3, 1, 1)])
def test_images_of_any_size_go_in_and_come_out(shape: tuple[int, int, int], clothes: torch.Tensor) -> None:
    x = F.interpolate(clothes, shape[1:], mode="bilinear", antialias=True).expand(-1, shape[0], -1, -1)
    encoder, decoder = SpatialEncoder(shape, 6, WIDTHS), SpatialDecoder(shape, 6, WIDTHS)
    e = encoder(x)
    assert e.shape == (5, 6, *encoder.grid)
    assert encoder.grid == (-(-shape[1] // 4), -(-shape[2] // 4))
    assert decoder(e).shape == x.shape
    assert SpatialDecoder(shape, 6, WIDTHS, output_channels=7)(e).shape == (5, 7, *x.shape[2:])


def test_features_are_normalised_at_each_place(clothes: torch.Tensor) -> None:
    e = SpatialEncoder((1, 28, 28), 6, WIDTHS)(clothes)
    torch.testing.assert_close(e.mean(1), torch.zeros(5, 7, 7), atol=1e-5, rtol=0)
    torch.testing.assert_close(e.var(1, correction=0), torch.ones(5, 7, 7), atol=1e-2, rtol=0)


def test_features_are_where_their_pixels_are() -> None:
    encoder, decoder = SpatialEncoder((1, 48, 48), 6, (8,), blocks=1), SpatialDecoder((1, 48, 48), 6, (8,), blocks=1)
    x, changed = torch.zeros(2, 1, 1, 48, 48)
    changed[..., 10, 30] = 1
    rows, columns = (encoder(changed) - encoder(x)).abs().amax((0, 1)).gt(1e-6).nonzero().T
    assert {5, 15} <= {*rows.tolist(), *columns.tolist()}
    assert (rows - 5).abs().max() == (columns - 15).abs().max() == 3  # three convolutions
    z, changed = torch.zeros(2, 1, 6, 24, 24)
    changed[..., 5, 15] = 1
    rows, columns = (decoder(changed) - decoder(z)).abs().amax((0, 1)).gt(1e-6).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10 - 8, 11 + 8, 30 - 8, 31 + 8)


def test_every_pixel_counts() -> None:
    x = torch.randn(1, 3, 20, 13, requires_grad=True)  # a size that is padded
    (SpatialEncoder((3, 20, 13), 4, WIDTHS)(x) * torch.randn(1, 4, 5, 4)).sum().backward()
    assert x.grad is not None
    assert x.grad.all()


@pytest.mark.parametrize("network", [SpatialEncoder, SpatialDecoder])
def test_labels_change_nothing_at_first_and_something_later(network: Any, clothes: torch.Tensor) -> None:
    model = network((1, 28, 28), 4, WIDTHS, num_classes=3)
    given = clothes if network is SpatialEncoder else torch.randn(5, 4, 7, 7)
    y = torch.zeros(5, dtype=torch.long)
    assert torch.equal(model(given, y), model(given, y + 1))
    nn.init.normal_(model.classes.embedding.weight)
    assert not torch.equal(model(given, y), model(given, y + 1))
    with pytest.raises(ValueError, match="needs a label per image"):
        model(given)


@pytest.mark.parametrize("network", [SpatialEncoder, SpatialDecoder])
def test_they_are_rebuilt_from_their_descriptions(network: Any, clothes: torch.Tensor) -> None:
    model = network((1, 28, 28), code_dim=4, widths=WIDTHS, blocks=2)
    again = rebuild(describe(model))
    again.load_state_dict(model.state_dict())
    given = clothes if network is SpatialEncoder else torch.randn(5, 4, 7, 7)
    assert torch.equal(model(given), again(given))


@pytest.mark.parametrize("network", [SpatialEncoder, SpatialDecoder])
def test_a_level_is_needed(network: Any) -> None:
    with pytest.raises(ValueError, match=r"widths=\(\): give the channels of at least one level"):
        network((1, 28, 28), 4, widths=())
