"""Networks of the auto-encoders: any size, any number of channels, with labels and without."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lit_generative import ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from lit_generative.nn.heads import PosteriorHead
from lit_generative.nn.levels import ChannelNorm, ResidualBlock

ENCODERS: list[tuple[Any, dict[str, Any]]] = [(MLPEncoder, {"hidden": (16,)}), (ConvEncoder, {"widths": (8, 12)})]
DECODERS: list[tuple[Any, dict[str, Any]]] = [(MLPDecoder, {"hidden": (16,)}), (ConvDecoder, {"widths": (8, 12)})]
PAIRS = list(zip(ENCODERS, DECODERS, strict=True))


@pytest.fixture(scope="module")
def clothes() -> torch.Tensor:
    return next(iter(ImageDataModule().loader("test", batch_size=5)))["image"]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 20, 13), (1, 5, 64), (3, 1, 1)])
@pytest.mark.parametrize(("encoder", "decoder"), PAIRS, ids=["mlp", "conv"])
def test_images_of_any_size_go_in_and_come_out(
    encoder: Any, decoder: Any, shape: tuple[int, int, int], clothes: torch.Tensor
) -> None:
    x = F.interpolate(clothes, shape[1:], mode="bilinear", antialias=True).expand(-1, shape[0], -1, -1)
    q = encoder[0](shape, 4, **encoder[1])(x)
    assert (q.batch_shape, q.event_shape) == ((5,), (4,))
    assert decoder[0](shape, 4, **decoder[1])(q.mean).shape == x.shape


@pytest.mark.parametrize("encoder", ENCODERS, ids=["mlp", "conv"])
def test_every_pixel_counts(encoder: Any) -> None:
    cls, options = encoder
    x = torch.randn(1, 3, 20, 13, requires_grad=True)  # a size that is padded
    cls((3, 20, 13), 4, **options)(x).mean.square().sum().backward()
    assert x.grad is not None
    assert x.grad.all()


@pytest.mark.parametrize(("network", "options"), [*ENCODERS, *DECODERS])
def test_labels_change_nothing_at_first_and_something_later(
    network: Any, options: dict[str, Any], clothes: torch.Tensor
) -> None:
    model = network((1, 28, 28), 4, num_classes=3, **options)
    given = clothes if "Encoder" in network.__name__ else torch.randn(5, 4)

    def out(label: int) -> torch.Tensor:
        found = model(given, torch.full((5,), label))
        return found if isinstance(found, torch.Tensor) else found.mean

    assert torch.equal(out(0), out(1))
    classes = model.head.classes if "Encoder" in network.__name__ else model.classes
    nn.init.normal_(classes.embedding.weight)
    assert not torch.equal(out(0), out(1))
    with pytest.raises(ValueError, match=r"y=None: a class-conditional network .* needs a label per image"):
        model(given)


@pytest.mark.parametrize(("network", "options"), [*ENCODERS, *DECODERS])
def test_networks_are_described_by_plain_data(network: Any, options: dict[str, Any]) -> None:
    model = network((1, 28, 28), 4, num_classes=3, **options)
    again = rebuild(describe(model))
    again.load_state_dict(model.state_dict())
    assert type(again) is network


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS, ids=["mlp", "conv"])
def test_posteriors_are_float32_whatever_the_network_computes_in(
    encoder: Any, decoder: Any, clothes: torch.Tensor
) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = encoder[0]((1, 28, 28), 4, **encoder[1])(clothes)
    assert q.mean.dtype == q.stddev.dtype == torch.float32


def test_a_residual_block_adds_to_what_it_is_given() -> None:
    block, x = ResidualBlock(4), torch.randn(2, 4, 6, 6)
    assert not torch.equal(block(x), x)
    for parameter in block.conv2.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(block(x), x)


def test_channels_are_normalised_position_by_position() -> None:
    norm, x = ChannelNorm(16), 3 + 5 * torch.randn(2, 16, 4, 4)
    out = norm(x)
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(2, 4, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(dim=1, correction=0), torch.ones(2, 4, 4), atol=1e-3, rtol=0)
    torch.testing.assert_close(norm(x[1:, :, 2:]), out[1:, :, 2:])
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def posterior_of(parameters: torch.Tensor) -> Any:
    """Return what an encoder makes of the numbers of its last layer."""
    head = PosteriorHead(parameters.shape[1], parameters.shape[1] // 2, None, None)
    nn.init.eye_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    return head(parameters, None)


def test_by_default_encoders_put_out_mean_and_log_variance() -> None:
    mean, log_variance = torch.randn(3, 4), torch.randn(3, 4)
    q = posterior_of(torch.cat([mean, log_variance], dim=1))
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.variance.log(), log_variance)


@pytest.mark.parametrize("log_variance", [-1e4, 1e4])
def test_an_extreme_variance_stays_finite(log_variance: float) -> None:
    q = posterior_of(torch.full((1, 2), log_variance))
    assert torch.isfinite(q.stddev).all()
    assert (q.stddev > 0).all()


def test_a_perceptron_without_hidden_layers_is_linear(clothes: torch.Tensor) -> None:
    encoder = MLPEncoder((1, 28, 28), 4, hidden=())
    decoder = MLPDecoder((1, 28, 28), 4, hidden=())
    torch.testing.assert_close(
        encoder(clothes[:2].mean(0, keepdim=True)).mean, encoder(clothes[:2]).mean.mean(0, keepdim=True)
    )
    assert decoder(torch.randn(2, 4)).shape == (2, 1, 28, 28)


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
def test_a_convolutional_network_needs_a_level(network: Any) -> None:
    with pytest.raises(ValueError, match=r"widths=\(\): .* at least one level"):
        network((1, 28, 28), 4, widths=())
