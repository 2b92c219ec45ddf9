"""Posteriors: the densities of their own samples and of any latents are exact, and encoders take them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal, kl_divergence
from vae_contract import rebuilt

from lit_generative import VAE, ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.nn import ConvEncoder, MLPDecoder, MLPEncoder
from lit_generative.vae.likelihoods import GaussianLikelihood
from lit_generative.vae.posteriors import (
    DiagonalNormalPosterior,
    FullNormalPosterior,
    InverseAutoregressivePosterior,
    Posterior,
)
from lit_generative.vae.priors import VampPrior, standard_normal

SHAPE = (1, 28, 28)
DIM = 4
POSTERIORS: dict[str, Any] = {
    "diagonal": DiagonalNormalPosterior,
    "full": FullNormalPosterior,
    "iaf": lambda: InverseAutoregressivePosterior(DIM, layers=3, hidden=16),
}


@pytest.fixture(scope="module")
def clothes() -> Tensor:
    return next(iter(ImageDataModule().loader("test", batch_size=6)))["image"]


def build(name: str) -> Posterior:
    """Make a posterior whose steps are far from the identity."""
    torch.manual_seed(0)
    posterior = POSTERIORS[name]()
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return posterior


def posterior_of(name: str, batch: int = 5) -> Any:
    posterior = build(name)
    return posterior(0.7 * torch.randn(batch, posterior.num_parameters(DIM)))


@pytest.mark.parametrize("name", POSTERIORS)
def test_densities_integrate_to_one_in_two_dimensions(name: str) -> None:
    torch.manual_seed(0)
    posterior: Any = InverseAutoregressivePosterior(2, 3, 16) if name == "iaf" else POSTERIORS[name]()
    q = posterior(0.7 * torch.randn(1, posterior.num_parameters(2)))
    axis = torch.linspace(-15, 15, 601)
    with torch.no_grad():
        total = q.log_prob(torch.cartesian_prod(axis, axis)[:, None]).double().exp().sum()
    assert total.item() * (axis[1] - axis[0]).item() ** 2 == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("name", POSTERIORS)
def test_shapes_of_samples_and_densities(name: str) -> None:
    q = posterior_of(name)
    assert (q.batch_shape, q.event_shape) == ((5,), (DIM,))
    assert q.mean.shape == (5, DIM)
    z = q.rsample(torch.Size([7]))
    assert z.shape == (7, 5, DIM)
    assert q.log_prob(z).shape == q.log_prob(z.clone()).shape == (7, 5)


@pytest.mark.parametrize("name", POSTERIORS)
def test_gradients_of_the_bound_reach_every_parameter(name: str) -> None:
    posterior = build(name)
    parameters = torch.randn(5, posterior.num_parameters(DIM), requires_grad=True)
    q = posterior(parameters)
    z = q.rsample()
    (q.log_prob(z) + z.pow(3).sum(1)).sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.any(dim=0).all()
    for key, parameter in posterior.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key


def test_the_density_of_an_iaf_is_that_of_its_jacobian() -> None:
    posterior = build("iaf")
    parameters = torch.randn(1, posterior.num_parameters(DIM))
    q: Any = posterior(parameters)
    e = q.flow.base.sample()

    def through(e: Tensor) -> Tensor:
        return posterior(parameters).flow.transform.inv(e[None])[0]

    jacobian = torch.autograd.functional.jacobian(through, e[0])
    expected = q.flow.base.log_prob(e) - jacobian.slogdet().logabsdet
    z = through(e[0])[None]
    torch.testing.assert_close(q.log_prob(z), expected, atol=1e-4, rtol=1e-4)
    assert torch.linalg.matrix_rank(jacobian) == DIM
    assert (jacobian != 0).all()  # two orders of dimensions: each depends on each


def test_the_density_of_an_iafs_own_sample_needs_no_more_passes() -> None:
    posterior: Any = build("iaf")
    passes: list[int] = []
    for step in posterior.steps:
        step.hyper.register_forward_hook(lambda *_: passes.append(1))
    q = posterior(0.7 * torch.randn(5, posterior.num_parameters(DIM)))
    z = q.rsample()
    kept = q.log_prob(z)
    assert len(passes) == 3  # a pass a step
    found = q.log_prob(z.clone())
    assert len(passes) == 3 + 3 * (DIM + 1)  # one more for the Jacobian
    torch.testing.assert_close(found, kept, atol=1e-4, rtol=1e-4)


def test_the_density_that_is_kept_has_gradients_where_they_are_asked_for() -> None:
    q = posterior_of("iaf")
    z = q.sample()  # without gradients
    assert q.log_prob(z).requires_grad


def test_an_iaf_starts_as_the_diagonal_normal() -> None:
    posterior = InverseAutoregressivePosterior(DIM, layers=2, hidden=16)
    parameters, z = torch.randn(5, posterior.num_parameters(DIM)), torch.randn(5, DIM)
    normal = DiagonalNormalPosterior()(parameters[:, : 2 * DIM])
    torch.testing.assert_close(posterior(parameters).log_prob(z), normal.log_prob(z))


def test_inverting_an_iaf_gives_the_same_gradients() -> None:
    posterior = build("iaf")
    parameters = torch.randn(3, posterior.num_parameters(DIM))
    z = torch.randn(3, DIM)

    def density(x: Tensor) -> Tensor:
        return posterior(x).log_prob(z).sum()

    exact = torch.autograd.functional.jacobian(density, parameters)
    step = torch.randn_like(parameters)
    numeric = (density(parameters + 1e-2 * step) - density(parameters - 1e-2 * step)) / 2e-2
    assert (exact * step).sum().item() == pytest.approx(numeric.item(), rel=2e-2)


def test_an_iaf_sees_the_image() -> None:
    posterior = build("iaf")
    parameters = torch.randn(1, posterior.num_parameters(DIM))
    other = parameters.clone()
    other[:, 2 * DIM :] += 1
    assert not torch.equal(posterior(parameters).mean, posterior(other).mean)


def test_an_iaf_of_one_dimension_and_one_step() -> None:
    posterior = InverseAutoregressivePosterior(1, layers=1, hidden=4)
    q = posterior(torch.randn(3, posterior.num_parameters(1)))
    z = q.rsample()
    torch.testing.assert_close(q.log_prob(z), q.log_prob(z.clone()))


def test_the_kl_of_a_full_normal_is_torchs() -> None:
    q: Any = posterior_of("full")
    p = Independent(Normal(torch.randn(DIM), torch.rand(DIM) + 0.5), 1)
    torch_q = MultivariateNormal(q.loc, scale_tril=q.scale_tril)
    torch_p = MultivariateNormal(p.mean, covariance_matrix=torch.diag(p.variance))
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(torch_q, torch_p))
    standard = standard_normal(torch.zeros(DIM))
    torch_p = MultivariateNormal(torch.zeros(DIM), torch.eye(DIM))
    torch.testing.assert_close(kl_divergence(q, standard), kl_divergence(torch_q, torch_p))
    assert (q.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert (q.scale_tril.triu(1) == 0).all()
    assert (q.scale_tril.tril(-1) != 0).sum() == 5 * 6
    with pytest.raises(NotImplementedError):
        kl_divergence(q, Independent(Laplace(torch.zeros(DIM), torch.ones(DIM)), 1))


def test_a_full_normal_without_correlations_is_a_diagonal_one() -> None:
    mean, log_scale = torch.randn(5, DIM), torch.randn(5, DIM)
    full = FullNormalPosterior()(torch.cat([mean, log_scale, torch.zeros(5, 6)], dim=1))
    diagonal = DiagonalNormalPosterior()(torch.cat([mean, 2 * log_scale], dim=1))
    z, standard = torch.randn(5, DIM), standard_normal(torch.zeros(DIM))
    torch.testing.assert_close(full.log_prob(z), diagonal.log_prob(z))
    torch.testing.assert_close(kl_divergence(full, standard), kl_divergence(diagonal, standard))


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_extreme_parameters_stay_finite(name: str, value: float) -> None:
    posterior = build(name)
    q = posterior(torch.full((1, posterior.num_parameters(DIM)), value))
    z = q.rsample()
    assert z.isfinite().all()
    assert q.log_prob(z).isfinite().all()


@pytest.mark.parametrize("name", POSTERIORS)
@pytest.mark.parametrize("network", [MLPEncoder, ConvEncoder])
def test_encoders_take_posteriors_and_rebuild_with_them(name: str, network: Any, clothes: Tensor) -> None:
    options = {"hidden": (16,)} | ({"widths": (4,)} if network is ConvEncoder else {})
    encoder = network(SHAPE, DIM, posterior=build(name), **options)
    q = encoder(clothes)
    q.log_prob(q.rsample()).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    again = rebuild(describe(encoder))
    again.load_state_dict(encoder.state_dict())
    z = torch.randn(6, DIM)
    torch.testing.assert_close(again(clothes).log_prob(z), q.log_prob(z))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low: Any = encoder(clothes)
        z = low.rsample()
        assert z.dtype == low.log_prob(z).dtype == torch.float32
        torch.testing.assert_close(low.log_prob(z), low.log_prob(z.clone()), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("network", [MLPEncoder, ConvEncoder])
def test_an_encoder_with_a_diagonal_posterior_is_one_without(network: Any, clothes: Tensor) -> None:
    encoders = []
    for posterior in (None, DiagonalNormalPosterior()):
        torch.manual_seed(0)
        encoders.append(network(SHAPE, DIM, posterior=posterior))
    for encoder in encoders:
        torch.nn.init.normal_(encoder.head.linear.bias, std=30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(encoders[0](clothes).mean, encoders[1](clothes).mean)
    assert torch.equal(encoders[0](clothes).stddev, encoders[1](clothes).stddev)


@pytest.mark.parametrize("name", ["full", "iaf"])
def test_a_vae_learns_with_any_posterior_and_rebuilds(name: str, clothes: Tensor) -> None:
    torch.manual_seed(0)
    encoder = MLPEncoder(SHAPE, DIM, hidden=(32,), posterior=build(name))
    model = VAE(encoder, MLPDecoder(SHAPE, DIM, hidden=(32,)), GaussianLikelihood(), DIM)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    before = (model.reconstruct(clothes) - clothes).square().mean()
    for _ in range(80):
        optimizer.zero_grad()
        model.losses(clothes)["loss"].mean().backward()
        optimizer.step()
    assert (model.reconstruct(clothes) - clothes).square().mean() < 0.5 * before
    torch.testing.assert_close(rebuilt(model).reconstruct(clothes), model.reconstruct(clothes))


def test_a_vamp_prior_may_be_made_of_iafs() -> None:
    encoder = MLPEncoder(SHAPE, DIM, hidden=(16,), posterior=build("iaf"))
    prior = VampPrior(SHAPE, 5)
    p, z = prior(encoder), torch.randn(3, DIM)
    q = encoder(prior.pseudo_inputs.clamp(-1, 1))
    expected = torch.stack([q.log_prob(point.expand(5, -1)).logsumexp(0) for point in z]) - torch.tensor(5.0).log()
    torch.testing.assert_close(p.log_prob(z), expected)


def test_meaningless_arguments_of_posteriors_are_refused() -> None:
    with pytest.raises(ValueError, match="layers=0: it must be at least 1"):
        InverseAutoregressivePosterior(3, layers=0)
    with pytest.raises(ValueError, match="latent_dim=4 of the encoder is not its posterior's 3"):
        MLPEncoder(SHAPE, 4, posterior=InverseAutoregressivePosterior(3))
