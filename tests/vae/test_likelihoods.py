import math

import pytest
import torch
from scipy import integrate, stats
from torch.distributions import ContinuousBernoulli as TorchContinuousBernoulli

from lit_generative.data import ImageDataModule
from lit_generative.vae import BernoulliLikelihood, DiscretizedLogisticLikelihood, GaussianLikelihood, Likelihood
from lit_generative.vae.likelihoods import ContinuousBernoulliImages, DiscretizedLogisticImages

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1


@pytest.mark.parametrize("loc", [-3.0, -1.0, -0.3, 0.0, 0.501, 1.0, 40.0])
@pytest.mark.parametrize("scale", [1e-4, 1e-3, 0.02, 0.5, 20.0])
def test_discretized_logistic_sums_to_one(loc: float, scale: float) -> None:
    p = DiscretizedLogisticImages(torch.tensor(loc).double(), torch.tensor(scale).double()).log_prob(LEVELS).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-9)


def test_discretized_logistic_is_the_mass_between_bin_edges() -> None:
    loc, scale, h = 0.2, 0.07, 1 / 255
    p = DiscretizedLogisticImages(torch.tensor(loc).double(), torch.tensor(scale).double()).log_prob(LEVELS).exp()
    cdf = stats.logistic(loc, scale).cdf
    expected = torch.as_tensor(cdf(LEVELS + h) - cdf(LEVELS - h))
    expected[0], expected[-1] = cdf(-1 + h), 1 - cdf(1 - h)
    torch.testing.assert_close(p, expected)


def test_discretized_logistic_samples_follow_its_probabilities() -> None:
    torch.manual_seed(0)
    p = DiscretizedLogisticImages(torch.tensor(-0.9), torch.tensor(0.1))
    samples = p.sample(torch.Size([200_000]))
    counts = torch.bincount(((samples + 1) * 127.5).round().long(), minlength=256).double()
    expected = p.log_prob(LEVELS.float()).exp().double()
    keep = expected > 1e-4
    z = (counts - 200_000 * expected)[keep] / (200_000 * expected * (1 - expected))[keep].sqrt()
    assert z.abs().max() < 5
    assert p.mean.item() == pytest.approx((expected * LEVELS).sum().item(), abs=1e-3)


@pytest.mark.parametrize("loc", [-1e4, 1e4, 0.0])
def test_discretized_logistic_has_finite_gradients_far_out(loc: float) -> None:
    loc_, scale = torch.tensor(loc, requires_grad=True), torch.tensor(1e-3, requires_grad=True)
    DiscretizedLogisticImages(loc_, scale).log_prob(LEVELS.float()).sum().backward()
    assert torch.isfinite(loc_.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(scale.grad).all()  # type: ignore[arg-type]


def test_gaussian_is_the_normal_density_summed_over_pixels() -> None:
    x, decoded = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    expected = stats.norm(decoded.numpy(), 0.2).logpdf(x.numpy()).sum((1, 2, 3))
    torch.testing.assert_close(
        GaussianLikelihood(0.2)(decoded).log_prob(x), torch.as_tensor(expected, dtype=torch.float32)
    )


def test_bernoulli_is_the_cross_entropy_of_unit_intensities() -> None:
    x, logits = torch.rand(3, 1, 4, 4) * 2 - 1, torch.randn(3, 1, 4, 4)
    u, p = (x + 1) / 2, torch.sigmoid(logits)
    expected = (u * p.log() + (1 - u) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(BernoulliLikelihood()(logits).log_prob(x), expected)


@pytest.mark.parametrize(
    "likelihood",
    [BernoulliLikelihood(), GaussianLikelihood(), GaussianLikelihood(0.1), DiscretizedLogisticLikelihood()],
)
def test_every_likelihood_on_real_images(likelihood: Likelihood, data: ImageDataModule) -> None:
    x = next(iter(data.loader("test", batch_size=8)))["image"]
    decoded = torch.zeros_like(x, requires_grad=True)
    p = likelihood(decoded)
    log_p = p.log_prob(x)
    log_p.sum().backward()
    assert log_p.shape == (8,)
    assert torch.isfinite(log_p).all()
    assert torch.isfinite(decoded.grad).all()  # type: ignore[arg-type]
    assert p.mean.shape == p.sample().shape == x.shape
    if likelihood.is_discrete:  # at most log 256 a pixel is what a uniform distribution pays
        assert (log_p < 0).all()


def test_gaussian_refuses_a_scale_that_is_not_positive() -> None:
    with pytest.raises(ValueError, match=r"scale=-1.*positive"):
        GaussianLikelihood(-1)


def test_gaussian_starts_with_the_given_scale() -> None:
    assert GaussianLikelihood(0.25).log_scale.exp().item() == pytest.approx(0.25)
    assert math.isfinite(GaussianLikelihood().log_scale.item())


def test_a_bernoulli_has_masses_of_binary_images_only(data: ImageDataModule) -> None:
    clothes = next(iter(data.loader("test", batch_size=8)))["image"]
    assert not BernoulliLikelihood().has_mass
    likelihood = BernoulliLikelihood(binary=True)
    assert likelihood.has_mass
    p = likelihood(torch.zeros_like(clothes))
    torch.testing.assert_close(likelihood.log_mass(p, clothes.sign()), torch.full((8,), -784 * math.log(2)))
    with pytest.raises(ValueError, match=r"x has gray pixels, .*; binarise the data"):
        likelihood.log_mass(p, clothes)


@pytest.mark.filterwarnings("ignore:The occurrence of roundoff")  # it is below the tolerance
@pytest.mark.parametrize("logit", [-200.0, -30.0, -1.0, -1e-3, 0.0, 1e-6, 0.02, 0.61, 4.0, 100.0])
def test_continuous_bernoulli_against_numeric_integration(logit: float) -> None:
    p = ContinuousBernoulliImages(torch.tensor(logit).double())

    def density(x: float) -> float:
        return p.log_prob(torch.tensor(x).double()).exp().item()

    corner = 1 - 20 / max(20, abs(logit))
    points = [-corner, corner]
    assert integrate.quad(density, -1, 1, points=points)[0] == pytest.approx(1, abs=1e-8)
    mean = integrate.quad(lambda x: x * density(x), -1, 1, points=points)[0]
    assert p.mean.item() == pytest.approx(mean, abs=1e-8)
    edges = [-1.0, *((LEVELS[1:] + LEVELS[:-1]) / 2).tolist(), 1.0]
    for level in (0, 1, 100, 255):
        mass = integrate.quad(density, edges[level], edges[level + 1])[0]
        assert p.log_mass(LEVELS[level]).exp().item() == pytest.approx(mass, rel=1e-6, abs=1e-9)


def test_continuous_bernoulli_is_that_of_torch_where_that_is_exact() -> None:
    logits, x = torch.linspace(-6, 6, 41).double()[:, None], torch.linspace(-1, 1, 21).double()
    expected = TorchContinuousBernoulli(logits=logits, lims=(0.4999, 0.5001)).log_prob((x + 1) / 2) - math.log(2)
    torch.testing.assert_close(ContinuousBernoulliImages(logits).log_prob(x), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("logit", [-1e4, -0.6, 0.0, 1e-30, 0.6, 1e4])
def test_continuous_bernoulli_has_finite_gradients(logit: float) -> None:
    logits = torch.tensor(logit, requires_grad=True)
    p = ContinuousBernoulliImages(logits)
    (p.log_prob(torch.tensor([-1.0, 0.3, 1.0])).sum() + p.mean).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite()
