"""The mixture fitted to latents: expectation maximisation, densities against torch's, and its place in a model."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from lit_generative import VAE, GenerativeModule, ImageDataModule
from lit_generative.callbacks import EMA
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.vae import AggregatePrior, GaussianLikelihood, GaussianMixture
from lit_generative.vae.mixture import Components, component_log_probs, fit_components, spread_centres

MEANS = torch.tensor([[4.0, 0.0], [-4.0, 1.0], [0.0, -5.0]], dtype=torch.double)
COVARIANCES = torch.tensor(
    [[[1.0, 0.6], [0.6, 1.0]], [[0.3, 0.0], [0.0, 2.0]], [[0.5, -0.2], [-0.2, 0.4]]], dtype=torch.double
)
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.double)


def known() -> MixtureSameFamily:
    return MixtureSameFamily(Categorical(SHARES), MultivariateNormal(MEANS, COVARIANCES))


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Five principal components of real images: data that are no mixture."""
    x = next(iter(ImageDataModule(subset=1000).loader("train", batch_size=1000)))["image"].flatten(1).double()
    torch.manual_seed(0)
    return (x - x.mean(0)) @ torch.pca_lowrank(x, 5)[2]


def test_a_known_mixture_is_recovered() -> None:
    torch.manual_seed(0)
    z = known().sample(torch.Size([20_000]))
    fitted, objectives = fit_components(z, 3, 200, 1.0, torch.Generator().manual_seed(0), tolerance=1e-9)
    order = torch.cdist(MEANS, fitted.means).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2]
    covariances = fitted.factors @ fitted.factors.mT
    torch.testing.assert_close(fitted.log_weights[order].exp(), SHARES, atol=0.015, rtol=0)
    torch.testing.assert_close(fitted.means[order], MEANS, atol=0.05, rtol=0)
    torch.testing.assert_close(covariances[order], COVARIANCES, atol=0.12, rtol=0)
    log_prob = component_log_probs(z, fitted).logsumexp(0).mean()
    assert abs(log_prob - known().log_prob(z).mean()) < 0.01
    assert objectives[-1] == pytest.approx(float(log_prob), abs=0.01)  # the prior of covariances counts little


@pytest.mark.parametrize("shrinkage", [1e-3, 10.0])
def test_what_is_maximised_never_falls(pixels: Tensor, shrinkage: float) -> None:
    generator = torch.Generator().manual_seed(0)
    _, objectives = fit_components(pixels, 8, 40, shrinkage, generator, tolerance=-1.0)
    assert len(objectives) == 41
    gains = [after - before for before, after in pairwise(objectives)]
    assert min(gains) > -1e-9
    assert objectives[-1] - objectives[0] > 0.1


def test_it_stops_when_a_step_gains_little(pixels: Tensor) -> None:
    _, objectives = fit_components(pixels, 4, 1000, 10.0, torch.Generator().manual_seed(0), tolerance=1e-3)
    assert len(objectives) < 200
    assert objectives[-1] - objectives[-2] < 1e-3 <= objectives[-2] - objectives[-3]


@pytest.mark.parametrize("shrinkage", [1e-9, 500.0])
def test_one_component_is_the_normal_of_the_data(pixels: Tensor, shrinkage: float) -> None:
    """Its covariance is as if it had seen ``shrinkage`` more latents, of the data's variances and no correlation."""
    fitted, _ = fit_components(pixels, 1, 5, shrinkage, torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted.means[0], pixels.mean(0))
    scatter = len(pixels) * torch.cov(pixels.T, correction=0)
    expected = (scatter + shrinkage * pixels.var(0).diag()) / (len(pixels) + shrinkage)
    torch.testing.assert_close((fitted.factors @ fitted.factors.mT)[0], expected, atol=1e-6, rtol=1e-6)


def test_more_components_describe_real_latents_better(pixels: Tensor) -> None:
    found = [fit_components(pixels, k, 50, 1.0, torch.Generator().manual_seed(0))[1][-1] for k in (1, 4, 16)]
    assert found[0] + 0.1 < found[1] < found[2]


def test_the_same_latents_give_the_same_mixture(pixels: Tensor) -> None:
    first, again, other = (AggregatePrior(4, seed=seed, iterations=5).fit(pixels) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.means, other.means)


def test_fewer_different_latents_than_components_are_no_trouble() -> None:
    z = torch.ones(6, 2, dtype=torch.double)
    fitted, _ = fit_components(z, 3, 10, 1.0, torch.Generator().manual_seed(0))
    assert all(value.isfinite().all() for value in (fitted.means, fitted.factors))
    torch.testing.assert_close(fitted.log_weights.exp() @ fitted.means, z[0])


def test_centres_are_spread() -> None:
    torch.manual_seed(0)
    z = torch.cat([torch.zeros(1000, 1), torch.full((3, 1), 50.0), torch.full((3, 1), -50.0)]).double()
    centres = spread_centres(z + 0.01 * torch.randn_like(z), 3, torch.Generator().manual_seed(0))
    assert sorted(centres.round().flatten().tolist()) == [-50, 0, 50]


def two_classes() -> GaussianMixture:
    mixture = GaussianMixture(2, 3, 2)
    first = Components(SHARES.log(), MEANS, torch.linalg.cholesky(COVARIANCES))
    mixture.keep([first, first._replace(means=MEANS + 20)], images_seen=7)
    return mixture


def test_densities_are_those_of_torch() -> None:
    z, y = torch.randn(50, 2) * 3, torch.arange(50) % 2
    expected = known().log_prob((z - 20 * y[:, None]).double()).float()
    torch.testing.assert_close(two_classes().log_prob(z, y), expected, rtol=1e-4, atol=1e-4)


def test_draws_have_the_moments_of_the_mixture() -> None:
    torch.manual_seed(0)
    y = torch.arange(40_000) % 2
    z = two_classes().sample(40_000, y)
    torch.testing.assert_close(z[y == 0].mean(0).double(), known().mean, atol=0.1, rtol=0)
    torch.testing.assert_close(z[y == 1].mean(0).double(), known().mean + 20, atol=0.1, rtol=0)
    log_prob = known().log_prob(z[y == 0].double())
    entropy = known().log_prob(known().sample(torch.Size([20_000]))).mean()
    assert log_prob.mean() == pytest.approx(float(entropy), abs=0.05)


def build(num_classes: int | None = None, aggregate_prior: AggregatePrior | None = None) -> VAE:
    torch.manual_seed(0)
    networks = [network((1, 28, 28), 3, hidden=(32,), num_classes=num_classes) for network in (MLPEncoder, MLPDecoder)]
    prior = aggregate_prior or AggregatePrior(3, num_images=300)
    return VAE(*networks, GaussianLikelihood(), 3, aggregate_prior=prior, num_classes=num_classes)


@pytest.mark.parametrize("num_classes", [None, 10])
def test_training_fits_it_and_checkpoints_keep_it(
    make_trainer: Callable[..., Any], data: ImageDataModule, tmp_path: Path, num_classes: int | None
) -> None:
    model = build(num_classes)
    y = None if num_classes is None else torch.arange(10)
    before = model.sample(10, y, generator=torch.Generator().manual_seed(0))
    assert model.sampling["sampler"] == "prior, mean of the likelihood"
    trainer = make_trainer(max_epochs=1, limit_train_batches=5, callbacks=[EMA(0.9)])
    trainer.fit(model, datamodule=data)
    assert model.mixture is not None
    assert model.sampling["sampler"] == "aggregate posterior, mean of the likelihood"
    assert model.sampling["fitted_at"] == model.images_seen == 250
    assert model.sampling["aggregate_prior"]["init_args"] == {"components": 3, "num_images": 300}
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = GenerativeModule.load_from_checkpoint(tmp_path / "model.ckpt")
    draws = [m.sample(10, y, generator=torch.Generator().manual_seed(0)) for m in (model, loaded, build(num_classes))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], before)
    assert loaded.sampling == model.sampling
    # the averaged weights were the model's when it was fitted, and still are
    kept = model.mixture.means.clone()
    model.mixture.means.zero_()
    model.fit_mixture(data.loader("train", limit=300))
    torch.testing.assert_close(model.mixture.means, kept)


def test_training_itself_is_not_touched(make_trainer: Callable[..., Any]) -> None:
    with_it, without = build(), build()
    without.aggregate_prior = without.mixture = None
    for model in (with_it, without):
        torch.manual_seed(0)
        trainer = make_trainer(max_epochs=2, limit_train_batches=3)
        trainer.fit(model, datamodule=ImageDataModule(subset=100, batch_size=20))
    for a, b in zip(with_it.parameters(), without.parameters(), strict=True):
        assert torch.equal(a, b)


def test_likelihoods_are_of_what_samples_are_drawn_from(data: ImageDataModule) -> None:
    """With the mixture of one class set to N(0, I) it is the prior's; moved away it is far worse."""
    model, x = build(), next(iter(data.loader("test", batch_size=5)))["image"]
    assert model.mixture is not None

    def estimate() -> Tensor:
        found = model.likelihoods(x, evaluations=20, generator=torch.Generator().manual_seed(0))
        return found["importance_weighted"]

    plain = estimate()
    model.mixture.fitted_at.fill_(0)
    torch.testing.assert_close(estimate(), plain)
    model.mixture.means += 10
    assert (estimate() > plain + 50).all()


def test_a_mixture_needs_a_data_module(make_trainer: Callable[..., Any], data: ImageDataModule) -> None:
    with pytest.raises(ValueError, match="aggregate_prior needs a data module"):
        make_trainer(max_epochs=1).fit(build(), data.loader("train", limit=10), data.loader("val", limit=10))


def test_fewer_latents_than_components_still_make_a_density() -> None:
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    fitted = AggregatePrior(components=10).fit(z)
    assert fitted.log_weights.exp().sum().item() == pytest.approx(1)
    assert component_log_probs(z.double(), fitted).logsumexp(0).isfinite().all()


def test_a_class_of_fewer_than_two_images_has_the_mixture_of_all() -> None:
    batch = {"image": torch.rand(6, 1, 28, 28), "label": torch.tensor([0, 0, 0, 0, 0, 1])}
    model = build(3)
    model.fit_mixture([batch])
    assert model.mixture is not None
    assert torch.equal(model.mixture.means[1], model.mixture.means[2])
    assert not torch.equal(model.mixture.means[0], model.mixture.means[1])


def test_a_mixture_needs_two_images_and_a_prior() -> None:
    batch = {"image": torch.zeros(1, 1, 28, 28), "label": torch.zeros(1, dtype=torch.long)}
    with pytest.raises(ValueError, match="components=3, but there are 1 latents to fit them to"):
        build(10).fit_mixture([batch])
    model = build()
    model.aggregate_prior = model.mixture = None
    with pytest.raises(ValueError, match="aggregate_prior=None: give the model an AggregatePrior"):
        model.fit_mixture([batch])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 0}, "components=0: it must be at least 1"),
        ({"num_images": 1}, "num_images=1: it must be at least 2"),
        ({"iterations": 0}, "iterations=0: it must be at least 1"),
        ({"seed": -1}, "seed=-1: it must be at least 0"),
        ({"shrinkage": 0.0}, "shrinkage=0.0: it must be positive; without it covariances"),
    ],
)
def test_numbers_without_meaning_are_no_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AggregatePrior(**options)
