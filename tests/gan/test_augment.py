import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lit_generative.description import describe, rebuild
from lit_generative.gan.augment import (
    AdaptiveAugment,
    Augmentation,
    ComposedAugment,
    DiffAugment,
    InstanceNoiseAugment,
    brightness,
    contrast,
    cutout,
    saturation,
    translate,
    translation,
)

B = 64
ALL = torch.ones(B, 1, 1, 1, dtype=torch.bool)
AUGMENTATIONS: list[Callable[[], Augmentation]] = [
    DiffAugment,
    lambda: DiffAugment(["color"]),
    lambda: DiffAugment(["translation"], probability=0.5),
    InstanceNoiseAugment,
    lambda: InstanceNoiseAugment(0.3, until=1000),
    lambda: ComposedAugment([DiffAugment(["cutout"]), InstanceNoiseAugment()]),
    lambda: seen_by_all(AdaptiveAugment(DiffAugment())),
]
every_augmentation = pytest.mark.parametrize("make", AUGMENTATIONS)


def seen_by_all(augment: AdaptiveAugment) -> AdaptiveAugment:
    augment.raised.fill_(augment.horizon)
    return augment


def images(channels: int = 3, height: int = 12, width: int = 16) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(B, channels, height, width) * 1.8 - 0.9


def changed(augment: Augmentation, x: Tensor, probability: float = 1.0) -> Tensor:
    """Return which images an augmentation changes."""
    return (augment(x, probability) != x).flatten(1).any(1)


@every_augmentation
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_augmentation_keeps_shape_and_type_and_has_gradients(
    make: Callable[[], Augmentation], channels: int, dtype: torch.dtype
) -> None:
    x = images(channels).to(dtype).requires_grad_()
    out = make()(x)
    assert out.shape == x.shape
    assert out.dtype == dtype
    (gradient,) = torch.autograd.grad(out.float().square().sum(), x, create_graph=True)
    assert torch.isfinite(gradient).all()
    assert gradient.flatten(1).any(1).float().mean() > 0.9
    (second,) = torch.autograd.grad(gradient.float().square().sum(), x)  # what R1 needs
    assert torch.isfinite(second).all()
    assert second.any()


@every_augmentation
def test_every_augmentation_is_the_same_under_a_seed_and_in_channels_last(make: Callable[[], Augmentation]) -> None:
    augment, x = make(), images()
    outs = []
    for memory_format in (torch.contiguous_format, torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        outs.append(augment(x.to(memory_format=memory_format)))
    assert torch.equal(outs[0], outs[1])
    if not isinstance(augment, InstanceNoiseAugment | ComposedAugment):  # randn_like follows the memory format
        torch.testing.assert_close(outs[2], outs[0])
    assert not torch.equal(augment(x), outs[0])


@every_augmentation
def test_every_augmentation_with_probability_zero_is_the_identity(make: Callable[[], Augmentation]) -> None:
    assert torch.equal(make()(images(), 0.0), images())


@every_augmentation
def test_every_augmentation_draws_for_each_image(make: Callable[[], Augmentation]) -> None:
    same = images()[:1].expand(B, -1, -1, -1)
    assert len(make()(same).flatten(1).unique(dim=0)) > 5


@every_augmentation
def test_every_augmentation_is_rebuilt_from_its_description(make: Callable[[], Augmentation]) -> None:
    augment = make()
    rebuilt = rebuild(describe(augment))
    rebuilt.load_state_dict(augment.state_dict())
    outs = []
    for each in (augment, rebuilt):
        torch.manual_seed(1)
        outs.append(each(images()))
    assert torch.equal(*outs)


def test_a_probability_is_that_of_an_image() -> None:
    x = images().repeat(20, 1, 1, 1)
    assert all(changed(DiffAugment([word]), x).all() for word in ("color", "cutout"))
    assert changed(DiffAugment(["cutout"], probability=0.3), x).float().mean().item() == pytest.approx(0.3, abs=0.05)
    both = changed(DiffAugment(["cutout"], probability=0.6), x, probability=0.5)
    assert both.float().mean().item() == pytest.approx(0.3, abs=0.05)


def test_color_is_a_linear_map_of_each_image_with_the_paper_s_ranges() -> None:
    x = images()
    out = DiffAugment(["color"])(x)
    # differences between an image's pixels: of the channels' means, scaled by contrast alone
    grey, grey_out = x.mean(1).flatten(1), out.mean(1).flatten(1)
    contrasts = (grey_out - grey_out.mean(1, keepdim=True)) / (grey - grey.mean(1, keepdim=True))
    torch.testing.assert_close(contrasts, contrasts.median(1, keepdim=True)[0].expand_as(contrasts), atol=0.01, rtol=0)
    # distances of the channels to their mean: scaled by saturation as well
    hue, hue_out = (x - x.mean(1, keepdim=True)).flatten(1), (out - out.mean(1, keepdim=True)).flatten(1)
    saturations = (hue_out * hue).sum(1) / (hue * hue).sum(1) / contrasts.median(1)[0]
    torch.testing.assert_close(hue_out, (contrasts.median(1)[0] * saturations)[:, None] * hue)
    brightnesses = (out - x).mean((1, 2, 3))
    for draws, low, high in ((brightnesses, -0.5, 0.5), (saturations, 0, 2), (contrasts.median(1)[0], 0.5, 1.5)):
        assert low - 1e-3 < draws.min() < low + 0.15 * (high - low)
        assert high - 0.15 * (high - low) < draws.max() < high + 1e-3


def test_each_colour_transform_leaves_alone_what_it_should() -> None:
    x = images()
    shift = brightness(x, ALL) - x  # a constant per image
    torch.testing.assert_close(shift, shift[:, :1, :1, :1].expand_as(x))
    torch.testing.assert_close(saturation(x, ALL).mean(1), x.mean(1))
    torch.testing.assert_close(contrast(x, ALL).mean((1, 2, 3)), x.mean((1, 2, 3)))
    assert torch.equal(saturation(x[:, :1], ALL), x[:, :1])  # gray images have no colour


def test_translation_is_that_of_a_loop_over_images() -> None:
    x = images()
    height, width = x.shape[2:]
    down, right = torch.randint(-3, 4, (2, B))
    expected = torch.zeros_like(x)
    for i, (d, r) in enumerate(zip(down.tolist(), right.tolist(), strict=True)):
        for row in range(max(d, 0), min(height + d, height)):
            for column in range(max(r, 0), min(width + r, width)):
                expected[i, :, row, column] = x[i, :, row - d, column - r]
    assert torch.equal(translate(x, down, right), expected)


def test_translations_reach_an_eighth_of_the_size_and_no_further() -> None:
    # the coordinates themselves as an image; a zero is what moved in
    rows = torch.arange(1.0, 25)[:, None].expand(24, 16)
    columns = torch.arange(1.0, 17).expand(24, 16)
    x = torch.stack([rows, columns]).expand(500, -1, -1, -1)
    out = translation(x, torch.ones(500, 1, 1, 1, dtype=torch.bool))
    down, right = ((x - out)[:, channel, 12, 8] for channel in (0, 1))
    assert sorted(down.unique().tolist()) == [-3, -2, -1, 0, 1, 2, 3]
    assert sorted(right.unique().tolist()) == [-2, -1, 0, 1, 2]
    assert len(torch.stack([down, right], 1).unique(dim=0)) == 7 * 5  # drawn independently


def test_cutout_zeroes_one_rectangle_of_half_the_size() -> None:
    n = 2000
    x = torch.ones(n, 2, 12, 15)
    hole = cutout(x, torch.ones(n, 1, 1, 1, dtype=torch.bool)) == 0
    assert torch.equal(hole[:, 0], hole[:, 1])
    rows, columns = hole[:, 0].any(2), hole[:, 0].any(1)  # (n, 12), (n, 15)
    assert torch.equal(hole[:, 0], rows[:, :, None] & columns[:, None])
    for is_in, side in ((rows, 6), (columns, 8)):
        assert (is_in.int().diff(dim=1).abs().sum(1) <= 2).all(), "it is in one piece"
        touches_edge = is_in[:, 0] | is_in[:, -1]
        assert (is_in.sum(1)[~touches_edge] == side).all()
        assert (is_in.sum(1) >= side // 2).all()  # its centre is in the image
        assert is_in.sum(1).max() == side
        assert is_in.any(0).all()


def test_the_adapted_probability_rises_and_falls_by_the_images() -> None:
    augment = AdaptiveAugment(DiffAugment(), target=0.6, horizon=1000)
    sure, unsure = torch.full((8,), 3.0), torch.tensor([1.0, -1.0]).repeat(4)
    values = []
    for margins in [sure] * 30 + [unsure] * 40:
        augment.observe(margins, num_images=64)
        values.append(augment.probability.item())
    # r_t after k sure batches is 1 - 0.75^k, above 0.6 for k >= 4; it is used from the next batch on
    assert values[:6] == pytest.approx([0, 0, 0, 0, 0.064, 0.128])
    assert values[29] == 1
    # after k unsure batches it is 0.75^k, below 0.6 for k >= 2
    assert values[30:35] == pytest.approx([1, 1, 0.936, 0.872, 0.808])
    assert values[-1] == 0


def test_a_batch_is_only_seen_by_the_next_step() -> None:
    # so that what decides may be averaged over processes in between
    augment = AdaptiveAugment(DiffAugment(), horizon=100)
    augment.mean_sign.fill_(0.9)
    other = copy.deepcopy(augment)
    augment.observe(torch.ones(4), 10)
    other.observe(-torch.ones(4), 10)
    assert augment.probability == other.probability == 0.1
    assert augment.mean_sign.item() == pytest.approx(0.75 * 0.9 + 0.25)
    assert other.mean_sign.item() == pytest.approx(0.75 * 0.9 - 0.25)


def test_the_adapted_probability_is_that_of_an_image() -> None:
    x = images().repeat(20, 1, 1, 1)
    augment = AdaptiveAugment(DiffAugment(["cutout"]), horizon=1000)
    for raised, expected in ((0, 0.0), (300, 0.3), (1000, 1.0)):
        augment.raised.fill_(raised)
        assert changed(augment, x).float().mean().item() == pytest.approx(expected, abs=0.05 * (0 < raised < 1000))


def test_the_adapted_probability_survives_a_checkpoint_and_a_low_precision() -> None:
    augment = AdaptiveAugment(DiffAugment()).to(torch.bfloat16)
    augment.mean_sign.fill_(0.9)
    for _ in range(100):
        augment.observe(torch.ones(4, requires_grad=True), 64)
    assert augment.probability.item() == pytest.approx(6400 / 500_000)
    resumed = AdaptiveAugment(DiffAugment())
    resumed.load_state_dict(augment.state_dict())
    assert resumed.probability == augment.probability
    assert not augment.mean_sign.requires_grad


def test_instance_noise_has_its_scale_and_decays_linearly() -> None:
    x = torch.zeros(16, 1, 64, 64)
    noise = InstanceNoiseAugment(0.2, until=1000)
    outer = AdaptiveAugment(ComposedAugment([DiffAugment(), noise]))  # through which it sees the images too
    for seen, scale in ((0, 0.2), (250, 0.15), (500, 0.1), (1000, 0.0), (3000, 0.0)):
        outer.observe(torch.ones(4), seen - int(noise.seen))
        assert noise(x).std().item() == pytest.approx(scale, rel=0.02)
    steady = InstanceNoiseAugment(0.2)
    steady.observe(torch.ones(4), 10**9)
    assert steady(x).std().item() == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffAugment(["colour"]), r"policy=\['colour'\].*color, translation, cutout"),
        (lambda: DiffAugment([]), r"policy=\[\]"),
        (lambda: DiffAugment(probability=1.5), r"probability=1\.5.*in \[0, 1\]"),
        (lambda: AdaptiveAugment(DiffAugment(), target=1.0), r"target=1\.0.*in \(0, 1\)"),
        (lambda: AdaptiveAugment(DiffAugment(), horizon=0), "horizon=0.*at least 1"),
        (lambda: InstanceNoiseAugment(0.0), r"scale=0\.0.*positive"),
        (lambda: InstanceNoiseAugment(until=0), "until=0.*at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Augmentation], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
