"""Which noise goes with which image."""

import itertools

import pytest
import torch
from known_networks import Stub
from torch import Tensor

from lit_generative import DDPM
from lit_generative.description import describe, rebuild
from lit_generative.diffusion import (
    DDIM,
    AncestralSampler,
    FlowVelocityPrediction,
    HeunSampler,
    OptimalTransportCoupling,
    RectifiedFlowSchedule,
)


def pairs(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return torch.randn(2, n, 1, 3, 3, generator=torch.Generator().manual_seed(seed)).unbind(0)


def cost(x: Tensor, noise: Tensor) -> float:
    return (x - noise).square().sum().item()


def test_no_other_order_of_the_noise_is_nearer_to_the_images() -> None:
    x, noise = pairs(6)
    coupled = OptimalTransportCoupling()(x, noise)
    best = min(cost(x, noise[list(order)]) for order in itertools.permutations(range(6)))
    assert cost(x, coupled) == pytest.approx(best)
    assert cost(x, coupled) < cost(x, noise)


def test_noise_is_put_into_another_order_and_nothing_else() -> None:
    x, noise = pairs(64)
    coupled, untouched = OptimalTransportCoupling()(x, noise), noise.clone()
    assert torch.equal(coupled.flatten(1).sort(0).values, noise.flatten(1).sort(0).values)
    assert torch.equal(noise, untouched)


def test_noise_is_exchanged_within_a_label_alone() -> None:
    x, noise = pairs(60)
    y = torch.arange(60) % 3
    coupled = OptimalTransportCoupling()(x, noise, y)
    for label in range(3):
        own, given = coupled[y == label].flatten(1), noise[y == label].flatten(1)
        assert torch.equal(own.sort(0).values, given.sort(0).values)
        assert cost(x[y == label], coupled[y == label]) < cost(x[y == label], noise[y == label])


def test_on_the_line_large_with_large() -> None:
    x, noise = (values[:, :, :1, :1] for values in pairs(200))
    coupled = OptimalTransportCoupling()(x, noise)
    assert torch.equal(x.flatten().argsort(), coupled.flatten().argsort())


def test_training_and_validation_use_it() -> None:
    """With data that are the noise's own distribution, optimal pairs are near: the velocity is small."""
    losses = {}
    for coupling in (None, OptimalTransportCoupling()):
        torch.manual_seed(0)
        model = DDPM(
            Stub(lambda x, t, y: 0 * x), (1, 1, 1), RectifiedFlowSchedule(), FlowVelocityPrediction(),
            sampler=HeunSampler(5), coupling=coupling,
        )  # fmt: skip
        losses[coupling] = model.losses(torch.randn(500, 1, 1, 1))["loss"].mean().item()  # the mean of |eps - x|^2
    independent, coupled = losses.values()
    assert independent == pytest.approx(2, abs=0.3)
    assert coupled < 0.1


def test_what_needs_independent_noise_is_refused_or_left_out() -> None:
    coupling, straight = OptimalTransportCoupling(), RectifiedFlowSchedule()
    for sampler in (AncestralSampler(5), DDIM(5, eta=1.0)):
        with pytest.raises(ValueError, match=r"sampler=\w+: it draws noise.*take HeunSampler"):
            DDPM(Stub(), (1, 4, 4), straight, FlowVelocityPrediction(), sampler=sampler, coupling=coupling)
    model = DDPM(Stub(), (1, 4, 4), straight, FlowVelocityPrediction(), coupling=coupling)
    assert set(model.likelihoods(torch.zeros(2, 1, 4, 4), evaluations=4)) == {"flow"}
    assert type(rebuild(describe(coupling))) is OptimalTransportCoupling
