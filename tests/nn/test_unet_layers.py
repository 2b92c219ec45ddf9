"""The layers of diffusion networks: time as features, and fast ones that equal torch's own."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.nn.attention import attend
from lit_generative.nn.embeddings import TimeEmbedding, sinusoids
from lit_generative.nn.group_norm import GroupNorm
from lit_generative.nn.unet import DoublingConv, HalvingConv

# -------------------------------------------------------------------- time


def test_sinusoids_of_known_values() -> None:
    waves = sinusoids(torch.tensor([0.0, 1.0, 10.0]), 4, shift=1.0)  # frequencies 1 and 1/10000
    for i, p in enumerate((0, 1, 10)):
        expected = [math.sin(p), math.sin(p / 1e4), math.cos(p), math.cos(p / 1e4)]
        assert waves[i].tolist() == pytest.approx(expected, abs=1e-6)
    assert sinusoids(torch.tensor(1.0), 4)[1] == pytest.approx(math.sin(0.01))  # without the shift: 1 and 1/100


def test_the_steps_of_ddpm_are_integers() -> None:
    embedding = TimeEmbedding(16, 8)
    i = torch.arange(1000)
    expected = embedding.second(F.silu(embedding.first(sinusoids(i, 16))))
    assert torch.allclose(embedding((i + 1) / 1000), expected, atol=1e-4)


def test_times_are_told_apart_in_bf16() -> None:
    embedding, t = TimeEmbedding(16, 8), torch.tensor([0.5, 0.501])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = embedding(t)
    assert torch.equal(features, embedding(t))


# -------------------------------------------------------------------- layers


def normalisations(channels: int = 12, groups: int = 3) -> tuple[GroupNorm, nn.GroupNorm]:
    ours, theirs = GroupNorm(groups, channels, 1e-6), nn.GroupNorm(groups, channels, 1e-6)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (7, 7), (16, 9)], ids=str)
def test_group_normalisation_is_torch_s(size: tuple[int, int], layout: torch.memory_format, is_shifted: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = normalisations()
    x, shift, by = torch.randn(4, 12, *size), 2 * torch.randn(4, 12), torch.randn(4, 12, *size)
    x = x.to(memory_format=layout)
    results = []
    for norm, is_ours in ((ours, True), (theirs, False)):
        a, e = x.clone(memory_format=torch.preserve_format).requires_grad_(), shift.clone().requires_grad_()
        moved = a + e[:, :, None, None] if is_shifted else a
        y = norm(a, e if is_shifted else None) if is_ours else norm(moved)
        (y * by).sum().backward()
        gradients = [a.grad, norm.weight.grad, norm.bias.grad, *([e.grad] if is_shifted else [])]
        results.append([y.detach(), *gradients])
    assert torch.allclose(results[0][0], results[1][0], atol=1e-5)
    for mine, other in zip(*results, strict=True):
        assert (mine - other).abs().max() < 1e-5 * max(1, other.abs().max())
    assert results[0][0].is_contiguous(memory_format=layout)  # stays as it came


def test_group_normalisation_of_large_values_close_together() -> None:
    ours, theirs = normalisations()
    x = 1000 + torch.randn(4, 12, 8, 8)
    exact = theirs.double()(x.double())
    assert (ours(x) - exact).abs().max() < 1e-3
    assert (ours(torch.zeros_like(x), torch.zeros(4, 12)) - ours.bias[:, None, None]).abs().max() < 1e-6


def test_group_normalisation_has_the_right_derivatives() -> None:
    torch.manual_seed(0)
    norm = normalisations(4, 2)[0].double()
    x, shift = torch.randn(2, 4, 3, 2).double().requires_grad_(), torch.randn(2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(norm, (x, shift))
    assert torch.autograd.gradgradcheck(norm, (x, shift))


def test_group_normalisation_in_bf16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    norm = normalisations()[0]
    x, by = 3 + torch.randn(8, 12, 7, 7).to(torch.bfloat16).float(), torch.randn(8, 12, 7, 7).to(torch.bfloat16).float()
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        a = x.to(dtype).requires_grad_()
        y = norm(a, torch.ones(8, 12))
        assert y.dtype == dtype
        results.append((y, *torch.autograd.grad(y, (a, norm.weight, norm.bias), by.to(dtype))))
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("ratio", [10, 100])
def test_group_normalisation_in_bf16_moves_no_channel(ratio: float) -> None:
    """Offset and gain are not rounded: with the mean far from 0 that would be an error of whole channels."""
    torch.manual_seed(0)
    norm = normalisations()[0]
    x = (ratio + torch.randn(4, 12, 8, 8)).bfloat16().requires_grad_()
    shift, by = 3 * torch.randn(4, 12), torch.randn(4, 12, 8, 8).bfloat16()
    results = []
    for a in (x, x.detach().float().requires_grad_()):
        y = norm(a, shift)
        results.append((y.float(), torch.autograd.grad((y.float() * by.float()).sum(), a)[0].float()))
    (y, gradient), (exact, exact_gradient) = results
    assert ((y - exact).mean((2, 3)).abs() / exact.std()).max() < 0.008  # the result is rounded
    assert (y - exact).norm() < 0.003 * exact.norm()
    assert (gradient - exact_gradient).norm() < 0.003 * exact_gradient.norm()


def test_attention_is_torch_s() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 10, 8, requires_grad=True) for _ in range(3))
    by = torch.randn(2, 3, 10, 8)

    def results(f: Callable[..., Tensor]) -> list[Tensor]:
        y = f(q, k, v)
        return [y, *torch.autograd.grad((y * by).sum(), (q, k, v))]

    for ours, theirs in zip(results(attend), results(F.scaled_dot_product_attention), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 8), (8, 6)], ids=str)
def test_halving_rounds_up_and_doubling_undoes_it(size: tuple[int, int], centred: bool) -> None:
    x = torch.randn(2, 4, *size)
    half = HalvingConv(4, centred)(x)
    assert half.shape[2:] == tuple(math.ceil(side / 2) for side in size)
    assert DoublingConv(4)(half, size).shape == x.shape
