"""Bounds and likelihoods against a model whose exact likelihood is known: probabilistic PCA (Tipping & Bishop 1999)."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal

from lit_generative import VAE, ImageDataModule
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.vae import IWAE, BernoulliLikelihood, DiscretizedLogisticLikelihood, GaussianLikelihood

SHAPE = (1, 28, 28)
DIMS = 28 * 28
LATENT_DIM = 5
WIDER = 2.0  # the standard deviation of a posterior that is not the true one, relative to that
GAP = LATENT_DIM * (WIDER**2 - 1 - 2 * math.log(WIDER)) / 2  # its KL divergence to the true one


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Real images, in levels that are neither black nor white: a density has its whole mass in their bins."""
    x = next(iter(ImageDataModule(subset=800).loader("train", batch_size=500)))["image"]
    return (0.5 * x * 127.5 + 127.5).round() / 127.5 - 1


@pytest.fixture(scope="module")
def parameters(images: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return the mean, the orthogonal columns W, the variances along them and sigma of the best model (eq. 7 and 8)."""
    x = images.flatten(1).double()
    mean = x.mean(0)
    variances, axes = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    sigma2 = variances[:-LATENT_DIM].mean()
    variances, axes = variances[-LATENT_DIM:], axes[:, -LATENT_DIM:]
    return mean, axes * (variances - sigma2).sqrt(), variances, float(sigma2.sqrt())


@pytest.fixture(scope="module")
def exact(images: Tensor, parameters: tuple[Tensor, Tensor, Tensor, float]) -> Tensor:
    """log p(x) of the first 20 images, in nats."""
    mean, w, _, sigma = parameters
    p = LowRankMultivariateNormal(mean, w, torch.full((DIMS,), sigma**2, dtype=torch.double))
    return p.log_prob(images[:20].flatten(1).double())


def build(parameters: tuple[Tensor, Tensor, Tensor, float], wider: float = 1.0, num_samples: int = 0) -> VAE:
    """Make a VAE, or with ``num_samples`` an IWAE, that is the model, whose posterior (eq. 6) is a diagonal normal."""
    mean, w, variances, sigma = parameters
    encoder, decoder = MLPEncoder(SHAPE, LATENT_DIM, hidden=()), MLPDecoder(SHAPE, LATENT_DIM, hidden=())
    to_z = w.T / variances[:, None]
    with torch.no_grad():
        encoder.head.linear.weight.copy_(torch.cat([to_z, torch.zeros_like(to_z)]))
        log_variance = (sigma**2 / variances).log() + 2 * math.log(wider)
        encoder.head.linear.bias.copy_(torch.cat([-to_z @ mean, log_variance]))
        decoder.head.weight.copy_(w)
        decoder.head.bias.copy_(mean)
    if num_samples:
        return IWAE(encoder, decoder, GaussianLikelihood(sigma), LATENT_DIM, num_samples)
    return VAE(encoder, decoder, GaussianLikelihood(sigma), LATENT_DIM)


Parameters = tuple[Tensor, Tensor, Tensor, float]


def test_with_the_true_posterior_the_bound_is_the_likelihood(
    images: Tensor, parameters: Parameters, exact: Tensor
) -> None:
    torch.manual_seed(0)
    model, x = build(parameters), images[:20]
    bounds = torch.stack([-model.losses(x)["nelbo"].detach() for _ in range(300)])  # the KL is exact, the rest is drawn
    error = (bounds.mean(0) - exact) / (bounds.std(0) / math.sqrt(len(bounds)))
    assert error.abs().max() < 5  # standard errors


@pytest.mark.parametrize("num_samples", [1, 8])
def test_with_the_true_posterior_every_importance_weight_is_the_likelihood(
    images: Tensor, parameters: Parameters, exact: Tensor, num_samples: int
) -> None:
    torch.manual_seed(0)
    loss = build(parameters, num_samples=num_samples).losses(images[:20])["loss"]
    torch.testing.assert_close(-loss.double(), exact, atol=0.01, rtol=0)


def test_the_bounds_rise_with_the_samples_to_the_likelihood(
    images: Tensor, parameters: Parameters, exact: Tensor
) -> None:
    torch.manual_seed(0)
    x = images[:20].repeat(20, 1, 1, 1)
    gaps = []
    with torch.no_grad():
        for num_samples in (1, 4, 16, 64):
            losses = build(parameters, WIDER, num_samples).losses(x)
            gaps.append((losses["loss"].double() + exact.repeat(20)).mean().item())
            assert (losses["loss"] <= losses["nelbo"] + 1e-3).all()  # per image, by Jensen's inequality
    assert gaps[0] == pytest.approx(GAP, abs=0.5)
    assert gaps[0] > gaps[1] + 0.5 > gaps[2] + 0.7 > gaps[3] + 0.7
    assert -0.01 < gaps[3] < 0.15


def test_likelihoods_of_levels_are_those_of_the_density(images: Tensor, parameters: Parameters, exact: Tensor) -> None:
    """A bin is 2/255 wide, sigma several times that: the mass is the density times the width."""
    expected = -(exact + DIMS * math.log(2 / 255))
    found = build(parameters).likelihoods(images[:20], evaluations=3)
    for value in found.values():
        torch.testing.assert_close(value.double(), expected, atol=0.2, rtol=0)
    found = build(parameters, WIDER).likelihoods(
        images[:20], evaluations=2000, generator=torch.Generator().manual_seed(0)
    )
    assert (found["bound"] - expected).mean() == pytest.approx(GAP, abs=0.1)
    # w has the relative variance (4 / sqrt 7)^5 - 1 = 6.9, so that its mean's logarithm has a standard error of 0.06
    assert (found["importance_weighted"] - expected).abs().max() < 0.06 * 4 + 0.2
    assert (found["importance_weighted"] - expected).mean().abs() < 0.06
    assert (found["importance_weighted"] < found["bound"]).all()


def test_likelihoods_do_not_depend_on_how_much_is_decoded_at_once(
    images: Tensor, parameters: Parameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(parameters)  # of the true posterior, so that the latents drawn do not matter
    whole = model.likelihoods(images[:7], evaluations=10)
    decoded: list[int] = []
    decode = VAE.decode
    monkeypatch.setattr(VAE, "decode", lambda self, z, y=None: (decoded.append(len(z)), decode(self, z, y))[1])
    for images_at_once in (3, 20):
        monkeypatch.setattr("lit_generative.vae.bounds.VALUES_AT_ONCE", images_at_once * DIMS)
        decoded.clear()
        parts = model.likelihoods(images[:7], evaluations=10)
        assert max(decoded) <= images_at_once
        assert sum(decoded) == 70
        for name, value in parts.items():
            torch.testing.assert_close(value, whole[name], atol=0.01, rtol=0)


def test_a_seed_decides_likelihoods_and_randomness_goes_on(images: Tensor, parameters: Parameters) -> None:
    model = build(parameters, WIDER)
    before = torch.get_rng_state()
    first, again, other = (
        model.likelihoods(images[:3], evaluations=5, generator=torch.Generator().manual_seed(seed))["bound"]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_with_a_discrete_likelihood_it_is_the_loss_that_was_trained(images: Tensor) -> None:
    torch.manual_seed(0)
    networks = [network(SHAPE, LATENT_DIM, hidden=(16,)) for network in (MLPEncoder, MLPDecoder)]
    model = VAE(*networks, DiscretizedLogisticLikelihood(), LATENT_DIM)
    x = images[:4]
    found = model.likelihoods(x, evaluations=2000)["bound"]
    with torch.no_grad():
        trained = torch.stack([model.losses(x)["nelbo"] for _ in range(500)])
    error = (trained.mean(0) - found) / trained.std(0) * math.sqrt(400)
    assert error.abs().max() < 5
    assert ((trained.mean(0) - found).abs() < 0.01 * found).all()


def test_what_has_no_probability_of_levels_has_no_likelihood(images: Tensor, parameters: Parameters) -> None:
    model = build(parameters)
    model.likelihood = BernoulliLikelihood()
    assert model.likelihoods(images[:2], evaluations=1) == {}
    points = VAE(MLPEncoder((2, 1, 1), 2), MLPDecoder((2, 1, 1), 2), GaussianLikelihood(), 2)
    assert points.likelihoods(torch.zeros(3, 2, 1, 1), evaluations=1) == {}


def test_an_estimate_needs_an_evaluation(images: Tensor, parameters: Parameters) -> None:
    with pytest.raises(ValueError, match="evaluations=0: it must be at least 1"):
        build(parameters).likelihoods(images[:2], evaluations=0)
