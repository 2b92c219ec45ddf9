"""The ladder's network: its string of resolutions, its sizes, and what depends on what."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

from lit_generative import ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.nn import LadderNetwork
from lit_generative.nn.heads import diagonal_normal
from lit_generative.nn.ladder import blocks_by_resolution
from lit_generative.nn.ladder_blocks import BottleneckBlock, LatentLevel

SMALL: dict[str, Any] = {"blocks": "14x1,7x2,1x1", "widths": (8, 12, 16), "hidden": 4, "latent_channels": 3}


@pytest.fixture(scope="module")
def clothes() -> Tensor:
    return next(iter(ImageDataModule().loader("test", batch_size=4)))["image"]


def build(shape: tuple[int, int, int] = (1, 28, 28), **options: Any) -> LadderNetwork:
    """A small ladder whose weights are all away from where they start, some of which is zero."""
    torch.manual_seed(0)
    ladder = LadderNetwork(shape, **(SMALL | options))
    with torch.no_grad():
        for parameter in ladder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return ladder


class Given:
    """Draws what is given instead."""

    def __init__(self, drawn: list[Tensor]) -> None:
        self.drawn = iter(drawn)

    def __call__(self, q: Independent) -> Tensor:
        return next(self.drawn)


def mean(distribution: Independent) -> Tensor:
    return distribution.mean


def images(clothes: Tensor, shape: tuple[int, int, int]) -> Tensor:
    return F.interpolate(clothes, shape[1:], mode="bilinear", antialias=True).expand(-1, shape[0], -1, -1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("28x1,14x3,7x4,1x2", {28: 1, 14: 3, 7: 4, 1: 2}),
        ("1x1", {1: 1}),
        (" 32x10 , 8x2 ", {32: 10, 8: 2}),
    ],
)
def test_a_string_says_the_blocks_a_resolution(text: str, expected: dict[int, int]) -> None:
    assert blocks_by_resolution("blocks", text) == expected


@pytest.mark.parametrize("text", ["", "14", "14x", "14x0", "0x1", "x3", "14x3,", "14x3;7x4", "14d2", "14x-1", "14x1.5"])
def test_what_is_no_such_string_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^blocks='.*': '.*' is no RESOLUTIONxBLOCKS; write for instance '14x3,7x4,1x2'$"
    ):
        LadderNetwork((1, 28, 28), blocks=text, widths=[8])


@pytest.mark.parametrize("text", ["7x1,14x1", "14x1,14x2", "14x1,1x1,7x1", "14x1,7x1,14x1"])
def test_resolutions_fall(text: str) -> None:
    with pytest.raises(ValueError, match=r"^blocks='.*': its resolutions must fall from one to the next"):
        blocks_by_resolution("blocks", text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_blocks": "14x1,1x1"}, r"encoder_blocks='14x1,1x1': its resolutions must be those of blocks="),
        ({"encoder_blocks": "14"}, r"encoder_blocks='14': '14' is no RESOLUTIONxBLOCKS"),
        ({"widths": [8, 8]}, r"widths=\[8, 8\]: give a positive number for each of 3 resolutions"),
        ({"widths": []}, r"widths=\[\]: give a positive number for each of 3 resolutions"),
        ({"widths": [8, 0, 8]}, r"widths=\[8, 0, 8\]: it must be a list of whole"),
        ({"hidden": 0}, "hidden=0: it must be at least 1"),
        ({"latent_channels": 0}, "latent_channels=0: it must be at least 1"),
        ({"output_channels": 0}, "output_channels=0: it must be at least 1"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LadderNetwork((1, 28, 28), **(SMALL | options))


@pytest.mark.parametrize(
    ("shape", "patch", "finest_first"),
    [
        ((1, 28, 28), 2, [(14, 14), (7, 7), (1, 1)]),
        ((3, 32, 32), 3, [(11, 11), (6, 6), (1, 1)]),
        ((3, 20, 13), 2, [(10, 7), (5, 4), (1, 1)]),
        ((1, 5, 64), 5, [(1, 13), (1, 7), (1, 1)]),
        ((3, 1, 1), 1, [(1, 1), (1, 1), (1, 1)]),
        ((1, 14, 9), 1, [(14, 9), (7, 5), (1, 1)]),
    ],
)
def test_images_of_any_size_go_in_and_come_out(
    shape: tuple[int, int, int], patch: int, finest_first: list[tuple[int, int]], clothes: Tensor
) -> None:
    ladder = build(shape, output_channels=5)
    x = images(clothes, shape)
    assert ladder.patch == patch
    assert [tuple(f.shape[2:]) for f in ladder.ascend(x)] == finest_first
    decoded, levels = ladder(x)
    assert decoded.shape == (4, 5, *shape[1:])
    coarse, middle, fine = finest_first[::-1]
    assert ladder.level_sizes == [coarse, middle, middle, fine]
    assert [tuple(level.z.shape) for level in levels] == [(4, 3, *size) for size in ladder.level_sizes]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 13)])
def test_every_pixel_counts_and_every_pixel_is_made(shape: tuple[int, int, int], clothes: Tensor) -> None:
    x = images(clothes, shape).clone().requires_grad_()
    decoded, levels = build(shape)(x)
    (gradient,) = torch.autograd.grad(sum(level.kl().sum() for level in levels), x, retain_graph=True)
    assert gradient.all()
    start = torch.zeros_like(decoded, requires_grad=True)
    torch.autograd.backward((decoded + start).square().sum())
    assert start.grad is not None
    assert start.grad.all()


def test_a_level_depends_on_those_above_it_alone(clothes: Tensor) -> None:
    ladder, features = build(), build().ascend(clothes)
    torch.manual_seed(0)
    _, levels = ladder.descend(4, Independent.rsample, features)
    for k, changed in enumerate(levels):
        drawn = [level.z for level in levels]
        drawn[k] = changed.z + 1
        _, others = ladder.descend(4, Given(drawn), features)
        for i, (level, other) in enumerate(zip(levels, others, strict=True)):
            is_same = torch.equal(level.p.mean, other.p.mean)
            assert is_same == (i <= k), f"p of level {i}, when z of level {k} is another"
            assert torch.equal(level.q.mean, other.q.mean) == is_same  # type: ignore[union-attr]


def test_the_prior_knows_no_image_and_the_posterior_does(clothes: Tensor) -> None:
    ladder = build()
    _, unconditioned = ladder.descend(4, mean)
    assert all(level.q is None for level in unconditioned)
    for level in unconditioned:  # every image's is the same
        torch.testing.assert_close(level.p.mean, level.p.mean[:1].expand_as(level.p.mean))
    _, levels = ladder.descend(4, mean, ladder.ascend(clothes))
    torch.testing.assert_close(levels[0].p.mean, unconditioned[0].p.mean)
    assert all(level.q is not None and not torch.equal(level.q.mean[0], level.q.mean[1]) for level in levels)
    with pytest.raises(ValueError, match="q=None: latents drawn from the prior have no posterior; descend with"):
        unconditioned[0].kl()


def test_the_prior_starts_as_a_standard_normal_and_skip_paths_as_the_identity(clothes: Tensor) -> None:
    torch.manual_seed(0)
    _, levels = LadderNetwork((1, 28, 28), **SMALL)(clothes)
    for level in levels:
        assert torch.equal(level.p.mean, torch.zeros_like(level.p.mean))
        assert torch.equal(level.p.stddev, torch.ones_like(level.p.stddev))


def test_the_last_layers_start_scaled_by_depth() -> None:
    """With weights of variance 1 / sqrt(L)^2 each, L blocks add up to about what one adds."""
    growth = []
    for blocks in (1, 16):
        torch.manual_seed(0)
        ladder = LadderNetwork((1, 28, 28), blocks=f"14x{blocks}", widths=[16], hidden=8, latent_channels=4)
        x, _ = ladder.decoder(64, Independent.rsample)
        growth.append(x.std().item())
    assert growth[1] < 2 * growth[0]


def test_kl_and_log_ratio_are_those_of_torch() -> None:
    torch.manual_seed(0)
    q, p = (Independent(Normal(torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5) + 0.1), 3) for _ in range(2))
    z = q.sample()
    level = LatentLevel(z, p, q)
    by_hand = (p.stddev / q.stddev).log() + (q.variance + (q.mean - p.mean).square()) / (2 * p.variance) - 0.5
    torch.testing.assert_close(level.kl(), by_hand.flatten(1).sum(1))
    torch.testing.assert_close(level.kl(), kl_divergence(q, p))
    torch.testing.assert_close(level.log_ratio(), p.log_prob(z) - q.log_prob(z))
    torch.testing.assert_close(LatentLevel(z, p, p).kl(), torch.zeros(2))


@pytest.mark.parametrize("log_scale", [-1e4, 1e4])
def test_a_wild_scale_keeps_the_kl_finite(log_scale: float) -> None:
    zeros = torch.zeros(2, 3, 4, 5)
    wild, standard = diagonal_normal(zeros, zeros + log_scale), diagonal_normal(zeros, zeros)
    assert torch.isfinite(kl_divergence(wild, standard)).all()
    assert torch.isfinite(kl_divergence(standard, wild)).all()


def test_a_bottleneck_of_single_positions_has_no_weights_that_meet_padding() -> None:
    def kernels(size: tuple[int, int]) -> list[Any]:
        return [convolution.kernel_size for convolution in BottleneckBlock(4, 4, 2, size).children()]

    assert kernels((2, 1)) == [(1, 1), (1, 1), (1, 1), (1, 1)]
    assert kernels((1, 3)) == [(1, 1), (3, 3), (3, 3), (1, 1)]


def test_labels_change_nothing_at_first_and_something_later(clothes: Tensor) -> None:
    torch.manual_seed(0)
    ladder = LadderNetwork((1, 28, 28), **SMALL, num_classes=3)

    def out(label: int) -> Tensor:
        return ladder.descend(4, mean, ladder.ascend(clothes), torch.full((4,), label))[0]

    assert torch.equal(out(0), out(1))
    for classes in ladder.decoder.classes:
        torch.nn.init.normal_(classes.embedding.weight)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(out(0), out(1))
    with pytest.raises(ValueError, match=r"y=None: a class-conditional network .* needs a label per image"):
        ladder(clothes)


def test_encoder_and_decoder_may_have_other_depths() -> None:
    ladder = LadderNetwork((1, 28, 28), **SMALL, encoder_blocks="14x2,7x1,1x3")
    assert [len(blocks) for blocks in ladder.encoder.blocks] == [2, 1, 3]  # type: ignore[arg-type]
    assert [len(blocks) for blocks in ladder.decoder.blocks] == [1, 2, 1]  # type: ignore[arg-type]


def test_it_is_rebuilt_from_plain_data(clothes: Tensor) -> None:
    ladder = build(encoder_blocks="14x1,7x1,1x1")
    again = rebuild(describe(ladder))
    again.load_state_dict(ladder.state_dict())
    outputs = []
    for network in (ladder, again):
        torch.manual_seed(1)
        outputs.append(network(clothes)[0])
    assert torch.equal(*outputs)


def test_bf16_is_near_float32(clothes: Tensor) -> None:
    ladder = build()
    exact, levels = ladder.descend(4, mean, ladder.ascend(clothes))
    with torch.autocast("cpu", torch.bfloat16):
        coarse, coarse_levels = ladder.descend(4, mean, ladder.ascend(clothes))
    assert coarse.dtype == torch.float32
    assert all(level.kl().dtype == torch.float32 for level in coarse_levels)
    assert (coarse - exact).norm() / exact.norm() < 0.05
    kl, coarse_kl = (sum(level.kl() for level in of) for of in (levels, coarse_levels))
    assert (kl - coarse_kl).abs().max() / kl.abs().max() < 0.1  # type: ignore[union-attr, operator]
