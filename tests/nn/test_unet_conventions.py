"""U-Nets of other papers: scale-shift, residual ways between sizes, scaled sums, and positions by log-SNR."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative import DDPM
from lit_generative.description import describe, rebuild
from lit_generative.diffusion import (
    CosineSchedule,
    EDMPrediction,
    EDMSchedule,
    HeunSampler,
    LogSNRPosition,
    RectifiedFlowSchedule,
    Schedule,
    ZeroTerminalSNRSchedule,
)
from lit_generative.nn import ADMConventions, DDPMPlusPlusConventions, DiT, UNet, UNetConventions
from lit_generative.nn.embeddings import sinusoids
from lit_generative.nn.unet_blocks import AttentionBlock, DoublingBlock, HalvingBlock, TimedBlock

CONVENTIONS = [
    ADMConventions(),
    ADMConventions(residual_resizing=[]),
    DDPMPlusPlusConventions(stem_width=4),
    UNetConventions(residual_resizing=[0], scale_shift=True, bare_middle=True),
]


def build(conventions: UNetConventions, **options: Any) -> UNet:
    torch.manual_seed(0)
    unet = UNet((1, 13, 10), (8, 16, 16), 1, (1,), groups=4, conventions=conventions, **options).eval()
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.2)
    return unet


@pytest.mark.parametrize("conventions", CONVENTIONS, ids=lambda c: type(c).__name__)
def test_they_take_any_size_and_are_rebuilt(conventions: UNetConventions) -> None:
    unet = build(conventions, position=LogSNRPosition(CosineSchedule()))
    again = rebuild(describe(unet)).eval()
    again.load_state_dict(unet.state_dict())
    x, t = torch.randn(3, 1, 13, 10), torch.tensor([0.0, 0.4, 1.0])
    assert unet(x, t).shape == x.shape
    assert torch.equal(unet(x, t), again(x, t))
    assert again.conventions == conventions
    (gradient,) = torch.autograd.grad(unet(x, t).square().sum(), unet.time.first.weight)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("conventions", CONVENTIONS, ids=lambda c: type(c).__name__)
def test_they_start_at_0(conventions: UNetConventions) -> None:
    unet = UNet((1, 8, 8), (8, 8), 1, (0,), groups=4, conventions=conventions)
    assert unet(torch.randn(2, 1, 8, 8), torch.rand(2)).abs().max() == 0


def test_scale_and_shift_act_after_the_normalisation() -> None:
    torch.manual_seed(0)
    block = TimedBlock(8, 8, 4, groups=2, eps=1e-6, dropout=0.0, scale_shift=True, skip_scale=0.5)
    x, c = torch.randn(3, 8, 5, 5), torch.randn(3, 4)
    scale, shift = (c @ block.time.weight.T + block.time.bias)[..., None, None].chunk(2, dim=1)
    h = F.group_norm(block.conv1(F.silu(F.group_norm(x, 2, eps=1e-6))), 2, eps=1e-6)
    expected = 0.5 * (x + block.conv2(F.silu((1 + scale) * h + shift)))
    torch.testing.assert_close(block(x, c), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 8), (8, 6)], ids=str)
def test_residual_halving_averages_and_doubling_repeats(size: tuple[int, int]) -> None:
    x, c = torch.randn(2, 8, *size), torch.randn(2, 4)
    halve, double = (cls(8, 8, 4, groups=2, eps=1e-6, dropout=0.0) for cls in (HalvingBlock, DoublingBlock))
    for block in (halve, double):
        nn.init.zeros_(block.conv2.weight)
        nn.init.zeros_(block.conv2.bias)
    half = halve(x, c)
    assert half.shape[2:] == tuple(math.ceil(side / 2) for side in size)
    torch.testing.assert_close(half[..., 0, 0], x[..., :2, :2].mean((2, 3)))
    torch.testing.assert_close(
        half[..., -1, -1], x[..., (size[0] - 1) // 2 * 2 :, (size[1] - 1) // 2 * 2 :].mean((2, 3))
    )
    again = double(half, size, c)
    assert again.shape == x.shape
    torch.testing.assert_close(again[..., -1, -1], half[..., -1, -1])


def test_sums_of_ddpm_plus_plus_keep_the_scale() -> None:
    """Of two independent parts of variance 1, sqrt(1/2) of the sum has variance 1."""
    torch.manual_seed(0)
    block = AttentionBlock(16, None, 4, 1e-6, skip_scale=0.5**0.5)
    nn.init.zeros_(block.attention.out.weight)
    x = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(block(x), 0.5**0.5 * x)


def test_attention_on_the_way_up_may_be_that_of_the_last_block() -> None:
    unet = build(DDPMPlusPlusConventions(stem_width=4))
    placed = [[isinstance(a, AttentionBlock) for a in level.attentions] for level in unet.up]
    assert placed == [[False, False], [False, True], [False, False]]
    assert [isinstance(a, AttentionBlock) for a in unet.down[1].attentions] == [True]


# -------------------------------------------------------------------- log-SNR


@pytest.mark.parametrize("schedule", [CosineSchedule(), EDMSchedule(), RectifiedFlowSchedule()])
def test_the_position_is_c_noise(schedule: Schedule) -> None:
    t = torch.tensor([0.01, 0.3, 0.7, 1.0])
    alpha, sigma = schedule(t)
    torch.testing.assert_close(LogSNRPosition(schedule)(t), (sigma / alpha).log() / 4, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        LogSNRPosition(schedule, 250.0)(t), 250 * (sigma / alpha).log() / 4, rtol=1e-4, atol=2e-2
    )


@pytest.mark.parametrize("make", [
    lambda position: build(ADMConventions(), position=position),
    lambda position: DiT((1, 13, 10), 2, 16, 1, 2, position=position),
], ids=["UNet", "DiT"])  # fmt: skip
def test_networks_of_one_noise_level_agree_whatever_the_schedule(make: Any) -> None:
    """So that a network that was trained along one schedule may be sampled along another."""
    schedules = [CosineSchedule(), EDMSchedule(), RectifiedFlowSchedule()]
    networks = [make(LogSNRPosition(schedule)) for schedule in schedules]
    for network in networks:
        for parameter in network.parameters():
            nn.init.constant_(parameter, 0.05)
    x, log_snr = torch.randn(2, 1, 13, 10), torch.tensor([3.0, -2.0])
    first, *others = (n(x, s.time_of_log_snr(log_snr)) for n, s in zip(networks, schedules, strict=True))
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-3, atol=1e-4)


def test_the_features_are_sinusoids_of_the_position() -> None:
    unet = build(UNetConventions(frequency_shift=1.0), position=LogSNRPosition(EDMSchedule()))
    t = torch.tensor([0.2, 0.9])
    waves = sinusoids(-EDMSchedule().log_snr(t) / 8, 8, shift=1.0)
    expected = unet.time.second(F.silu(unet.time.first(waves)))
    torch.testing.assert_close(unet.time(t), expected)


def test_a_model_of_edm_s_parts_learns_and_samples() -> None:
    schedule, seen = EDMSchedule(), []

    def note(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output)

    network = build(DDPMPlusPlusConventions(stem_width=4), position=LogSNRPosition(schedule))
    network.time.register_forward_hook(note)
    model = DDPM(network, (1, 13, 10), schedule, EDMPrediction(), sampler=HeunSampler(3))
    model.losses(torch.rand(4, 1, 13, 10))["loss"].mean().backward()
    assert network.stem.weight.grad.abs().sum() > 0
    assert model.sample(2).shape == (2, 1, 13, 10)
    assert all(features.isfinite().all() for features in seen)


def test_at_noise_alone_the_position_is_finite() -> None:
    position = LogSNRPosition(ZeroTerminalSNRSchedule(CosineSchedule()))
    assert position(torch.tensor([0.0, 0.5, 1.0])).isfinite().all()


def test_a_scale_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"scale=0.*positive"):
        LogSNRPosition(CosineSchedule(), 0.0)
