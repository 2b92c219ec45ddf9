"""Priors are densities, draw from them, start and learn as they should, and make VAEs that rebuild."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from lit_generative import ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.nn import MLPEncoder
from lit_generative.vae.posteriors import FullNormalPosterior
from lit_generative.vae.priors import (
    MixtureOfGaussiansPrior,
    NeuralSplinePrior,
    Prior,
    RealNVPPrior,
    StandardNormalPrior,
    VampPrior,
    standard_normal,
)

SHAPE = (1, 28, 28)
PRIORS: dict[str, Callable[[int], Prior]] = {
    "normal": StandardNormalPrior,
    "mixture": lambda dim: MixtureOfGaussiansPrior(dim, 5),
    "vamp": lambda dim: VampPrior(SHAPE, 7, start=-0.5),
    "realnvp": lambda dim: RealNVPPrior(dim, layers=4, hidden=16),
    "spline": lambda dim: NeuralSplinePrior(dim, transforms=2, hidden=16),
}
FLOWS = ("realnvp", "spline")


def encoder(dim: int, **options: Any) -> MLPEncoder:
    torch.manual_seed(3)
    return MLPEncoder(SHAPE, dim, hidden=(16,), **options)


def build(name: str, dim: int, jitter: float = 0.3) -> Prior:
    """Make a prior away from where it starts."""
    torch.manual_seed(0)
    prior = PRIORS[name](dim)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(jitter * torch.randn_like(parameter))
    return prior


@pytest.fixture(scope="module")
def clothes() -> Tensor:
    return next(iter(ImageDataModule().loader("test", batch_size=32)))["image"]


@pytest.mark.parametrize("name", PRIORS)
def test_densities_integrate_to_one(name: str) -> None:
    p = build(name, 2)(encoder(2))
    axis = torch.linspace(-12, 12, 301)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        total = p.log_prob(z).double().exp().sum() * (axis[1] - axis[0]).item() ** 2
    assert total.item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("dim", [1, 3])
def test_samples_follow_the_density(name: str, dim: int) -> None:
    """E_p[q(z) / p(z)] = 1 for the density q of a narrower normal."""
    p = build(name, dim, 0.1)(encoder(dim))
    with torch.no_grad():
        z = p.sample(torch.Size([20_000]))
        assert z.shape == (20_000, dim)
        assert (p.batch_shape, p.event_shape) == ((), (dim,))
        center, spread = z.median(0).values, 0.5 * z.std(0)
        log_q = torch.distributions.Normal(center, spread).log_prob(z).sum(1)
        ratio = (log_q - p.log_prob(z)).exp().double()
    error = (ratio.mean() - 1) / (ratio.std() / math.sqrt(len(z)))
    assert abs(error.item()) < 5


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "normal"])
@pytest.mark.parametrize("dim", [2, 6])
def test_gradients_reach_every_parameter(name: str, dim: int) -> None:
    prior, encode = build(name, dim), encoder(dim)
    prior(encode).log_prob(torch.randn(9, dim)).sum().backward()
    for key, parameter in prior.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key
    if name == "vamp":
        assert all(parameter.grad is not None for parameter in encode.parameters())


@pytest.mark.parametrize("name", PRIORS)
def test_priors_are_rebuilt_with_their_weights(name: str) -> None:
    prior, encode, z = build(name, 4), encoder(4), torch.randn(5, 4)
    again = rebuild(describe(prior))
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again(encode).log_prob(z), prior(encode).log_prob(z))


@pytest.mark.parametrize("name", PRIORS)
def test_densities_under_autocast_are_those_of_full_precision(name: str) -> None:
    prior, z = build(name, 4), torch.randn(5, 4)
    encode = encoder(4)
    q: Distribution = encode(torch.zeros(7, *SHAPE))
    exact = prior(lambda x: q).log_prob(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = prior(lambda x: q).log_prob(z)
    torch.testing.assert_close(found, exact)


def test_a_standard_normal_is_what_the_vae_has_by_itself() -> None:
    p, z = StandardNormalPrior(3)(encoder(3)), torch.randn(5, 3)
    torch.testing.assert_close(p.log_prob(z), -0.5 * z.square().sum(1) - 1.5 * math.log(2 * math.pi))
    q = encoder(3)(torch.randn(5, *SHAPE))
    assert torch.equal(kl_divergence(q, p), kl_divergence(q, standard_normal(torch.zeros(3))))


def test_a_realnvp_starts_as_the_standard_normal() -> None:
    z = torch.randn(50, 5)
    torch.testing.assert_close(
        RealNVPPrior(5)(encoder(5)).log_prob(z), standard_normal(torch.zeros(5)).log_prob(z), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("dim", [2, 5])
def test_a_flow_is_a_bijection_with_the_right_jacobian(name: str, dim: int) -> None:
    prior = build(name, dim).double()
    p: Any = prior(encoder(dim))
    torch.manual_seed(0)
    e = torch.randn(dim, dtype=torch.double)
    inverse = p.flow.transform
    forward = inverse.inv
    z = forward(e).detach()
    torch.testing.assert_close(inverse(z), e, atol=1e-6, rtol=1e-6)
    jacobian = torch.autograd.functional.jacobian(forward, e)
    expected = standard_normal(torch.zeros(dim, dtype=torch.double)).log_prob(e) - jacobian.slogdet().logabsdet
    torch.testing.assert_close(p.log_prob(z), expected)


@pytest.mark.parametrize("dim", [2, 3, 4, 8, 13])
def test_every_dimension_of_a_realnvp_depends_on_every_other(dim: int) -> None:
    layers = 4 * max(1, (dim - 1).bit_length())
    torch.manual_seed(0)
    prior = RealNVPPrior(dim, layers=layers, hidden=16)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    p: Any = prior(encoder(dim))
    assert (torch.autograd.functional.jacobian(p.flow.transform.inv, torch.randn(dim)) != 0).all()
    given = torch.stack([coupling.mask for coupling in prior.couplings])  # (layers, dim)
    changes = (given[:, :, None] & ~given[:, None, :]).any(0)  # whether the first is given where the second is changed
    assert (changes | torch.eye(dim, dtype=torch.bool)).all()


@pytest.mark.parametrize("name", ["mixture", "realnvp", "spline"])
def test_priors_learn_a_density_that_is_not_normal(name: str) -> None:
    """Two clumps at (-2, 0) and (2, 0), of which a normal of their moments is 0.9 nats away."""
    torch.manual_seed(1)
    side = torch.randint(2, (500, 1)) * 4.0 - 2
    z = torch.cat([side, torch.zeros(500, 1)], 1) + 0.3 * torch.randn(500, 2)
    entropy = math.log(2) + 2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.3))
    prior = PRIORS[name](2)
    optimizer = torch.optim.Adam(prior.parameters(), lr=2e-2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = -prior(encoder(2)).log_prob(z).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < entropy + 0.25


def test_a_vamp_prior_is_the_mixture_of_its_images_posteriors(clothes: Tensor) -> None:
    prior, encode, z = VampPrior(SHAPE, 32), encoder(4), torch.randn(6, 4)
    prior.start_from(clothes)
    q = encode(clothes.clamp(-0.99, 0.99))
    expected = torch.logsumexp(q.log_prob(z[:, None]), dim=1) - math.log(32)
    torch.testing.assert_close(prior(encode).log_prob(z), expected)


def test_pseudo_inputs_that_start_from_images_can_move(clothes: Tensor) -> None:
    prior = VampPrior(SHAPE, 32)
    prior.start_from(clothes)
    prior(encoder(4)).log_prob(torch.randn(6, 4)).sum().backward()
    assert prior.pseudo_inputs.grad is not None
    assert prior.pseudo_inputs.grad.flatten(1).any(dim=1).all()
    assert (prior.pseudo_inputs.grad != 0).float().mean() > 0.99  # black and white pixels too


def test_pseudo_inputs_stay_in_the_range_of_images() -> None:
    seen = []

    def encode(x: Tensor) -> Distribution:
        seen.append(x)
        return encoder(4)(x)

    VampPrior(SHAPE, 5, start=0.5, spread=3)(encode)
    assert -1 <= seen[0].min() < seen[0].max() <= 1


def test_a_vamp_prior_of_full_normals(clothes: Tensor) -> None:
    p = VampPrior(SHAPE, 5)(encoder(3, posterior=FullNormalPosterior()))
    assert p.log_prob(torch.randn(4, 3)).shape == (4,)
    assert p.sample(torch.Size([6])).shape == (6, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StandardNormalPrior(0), "latent_dim=0: it must be at least 1"),
        (lambda: MixtureOfGaussiansPrior(2, 0), "components=0: it must be at least 1"),
        (lambda: VampPrior(SHAPE, 3, start=-1), r"start=-1: it must be in \(-1, 1\)"),
        (lambda: VampPrior(SHAPE, 3, spread=0), "spread=0: it must be positive"),
        (lambda: RealNVPPrior(2, layers=0), "layers=0: it must be at least 1"),
        (lambda: NeuralSplinePrior(2, bins=0), "bins=0: it must be at least 1"),
        (
            lambda: VampPrior(SHAPE, 3).start_from(torch.zeros(2, *SHAPE)),
            r"images have shape \(2, 1, 28, 28\); the pseudo-inputs need \(3, 1, 28, 28\)",
        ),
    ],
)
def test_meaningless_arguments_of_priors_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
