"""Regularisers: schedules at known places, decompositions that sum up, estimates against exact values."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    kl_divergence,
)
from vae_contract import rebuilt

from lit_generative import VAE, ImageDataModule
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.vae import (
    BetaRegulariser,
    CapacityRegulariser,
    CyclicalRegulariser,
    FreeBitsRegulariser,
    GaussianKernel,
    GaussianLikelihood,
    InverseMultiquadricKernel,
    LatentBatch,
    MMDRegulariser,
    Regulariser,
    TotalCorrelationRegulariser,
    WarmUpRegulariser,
)

ALL: dict[str, Callable[[], Regulariser]] = {
    "beta": lambda: BetaRegulariser(4.0),
    "warm-up": lambda: WarmUpRegulariser(1000),
    "cyclical": lambda: CyclicalRegulariser(1000),
    "free-bits": lambda: FreeBitsRegulariser(0.1),
    "capacity": lambda: CapacityRegulariser(10.0, 5.0, 1000),
    "total-correlation": lambda: TotalCorrelationRegulariser(num_images=5400),
    "mmd": lambda: MMDRegulariser(100.0, 0.1),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return next(iter(ImageDataModule(subset=50).loader("test", batch_size=16)))["image"]


def latents(batch_size: int = 16, dim: int = 3, images_seen: int = 0, num_images: int | None = None) -> LatentBatch:
    """Latents of posteriors that differ."""
    torch.manual_seed(0)
    mean = torch.randn(batch_size, dim, dtype=torch.double, requires_grad=True)
    q = Independent(Normal(mean, torch.rand(batch_size, dim, dtype=torch.double) + 0.3), 1)
    prior = Independent(Normal(torch.zeros(dim, dtype=torch.double), torch.ones(dim, dtype=torch.double)), 1)
    return LatentBatch(q, q.rsample(), prior, kl_divergence(q, prior), images_seen, num_images)


def build(regulariser: Regulariser | None) -> VAE:
    torch.manual_seed(0)
    networks = [network((1, 28, 28), 3, hidden=(16,)) for network in (MLPEncoder, MLPDecoder)]
    return VAE(*networks, GaussianLikelihood(), 3, regulariser=regulariser)


@pytest.mark.parametrize("name", ALL)
def test_each_takes_the_kls_place_in_the_loss_alone(images: Tensor, name: str) -> None:
    unregularised, model = build(None), build(ALL[name]())
    torch.manual_seed(1)
    plain = unregularised.losses(images)
    model.images_seen = 500
    torch.manual_seed(1)
    losses = model.losses(images)
    for key in ("nelbo", "nll", "kl"):
        assert torch.equal(losses[key], plain[key])
    assert losses["loss"].shape == (16,)
    assert not torch.equal(losses["loss"], plain["loss"])
    losses["loss"].mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ALL)
def test_each_is_rebuilt_from_a_checkpoint(name: str) -> None:
    model = build(ALL[name]())
    again = rebuilt(model)
    for seed in (0, 1):
        torch.manual_seed(seed)
        first = model.regulariser(latents(images_seen=700))
        torch.manual_seed(seed)
        torch.testing.assert_close(again.regulariser(latents(images_seen=700)), first)


@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_one_is_finite(name: str) -> None:
    assert ALL[name]()(latents(batch_size=1)).isfinite().all()


def test_beta_scales_the_kl() -> None:
    found = latents()
    assert torch.equal(BetaRegulariser(4.0)(found), 4 * found.kl)


@pytest.mark.parametrize(("seen", "weight"), [(0, 0), (250, 0.25), (1000, 1), (5000, 1)])
def test_warm_up_is_linear_in_the_images_seen(seen: int, weight: float) -> None:
    found = latents(images_seen=seen)
    torch.testing.assert_close(WarmUpRegulariser(1000)(found), weight * found.kl)
    torch.testing.assert_close(WarmUpRegulariser(1000, beta=0.5)(found), 0.5 * weight * found.kl)


@pytest.mark.parametrize(
    ("seen", "weight"),
    [(0, 0), (125, 0.5), (250, 1), (400, 1), (500, 0), (625, 0.5), (999, 1), (1000, 1), (1200, 1)],
)
def test_cyclical_rises_anew_in_every_cycle(seen: int, weight: float) -> None:
    """Two cycles of 500 images, of which the weight rises in the first half."""
    found = latents(images_seen=seen)
    torch.testing.assert_close(CyclicalRegulariser(1000, cycles=2, ramp=0.5)(found), weight * found.kl)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_a_share_of_the_training_means_as_many_images(share: float) -> None:
    """Of a training of 1,000 images, half of it is 500."""
    by_images, by_share = latents(images_seen=round(1000 * share)), latents()
    by_share.q, by_share.kl, by_share.share = by_images.q, by_images.kl, share
    for cls, options in {
        WarmUpRegulariser: {"beta": 0.5},
        CyclicalRegulariser: {"cycles": 2},
        CapacityRegulariser: {"gamma": 7.0, "nats": 20.0},
    }.items():
        stretched = cls(share=0.5, **options)
        assert stretched.follows_training
        torch.testing.assert_close(stretched(by_share), cls(images=500, **options)(by_images))


def test_a_share_needs_a_length_and_stands_alone() -> None:
    with pytest.raises(ValueError, match=r"share=0.5: the length of the training is not known"):
        WarmUpRegulariser(share=0.5)(latents())
    with pytest.raises(ValueError, match=r"images=5 and share=0.5: give one of them"):
        WarmUpRegulariser(5, share=0.5)
    with pytest.raises(ValueError, match="images=None and share=None: give one of them"):
        CyclicalRegulariser()


@pytest.mark.parametrize(("seen", "capacity"), [(0, 0), (500, 10), (1000, 20), (3000, 20)])
def test_capacity_is_the_distance_to_an_amount_that_grows(seen: int, capacity: float) -> None:
    found = latents(images_seen=seen)
    torch.testing.assert_close(CapacityRegulariser(7.0, 20.0, 1000)(found), 7 * (found.kl - capacity).abs())
    of_mean = CapacityRegulariser(7.0, 20.0, 1000, of_mean=True)(found)
    assert of_mean.shape == found.kl.shape
    torch.testing.assert_close(of_mean, (7 * (found.kl.mean() - capacity).abs()).expand_as(of_mean))


def test_free_bits_clamp_the_mean_kl_of_each_dimension() -> None:
    mean = torch.tensor([[0.1, 2.0], [0.3, -1.0]], requires_grad=True)
    q = Independent(Normal(mean, torch.ones(2, 2)), 1)
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    cost = FreeBitsRegulariser(0.5)(LatentBatch(q, mean, prior, kl_divergence(q, prior)))
    torch.testing.assert_close(cost, torch.full((2,), 0.5 + 1.25))  # KLs are mean^2 / 2: 0.025 and 1.25 on average
    cost.mean().backward()
    assert mean.grad is not None
    torch.testing.assert_close(mean.grad, torch.tensor([[0.0, 1.0], [0.0, -0.5]]))


def test_free_bits_need_independent_normals() -> None:
    found = latents()
    found.prior = MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(torch.zeros(2, 3), 1.0), 1))
    with pytest.raises(ValueError, match=r"FreeBitsRegulariser\(nats=0.1\) needs independent normals"):
        FreeBitsRegulariser(0.1)(found)


def test_total_correlation_decomposes_the_kl() -> None:
    found = latents(num_images=1000)
    parts = TotalCorrelationRegulariser().terms(found)
    ratio = found.q.log_prob(found.z) - found.prior.log_prob(found.z)
    torch.testing.assert_close(sum(parts.values()), ratio)
    torch.testing.assert_close(TotalCorrelationRegulariser(1.0, 1.0, 1.0)(found), ratio)
    weighted = 2 * parts["mutual_information"] + 3 * parts["total_correlation"] + 4 * parts["dimension_kl"]
    torch.testing.assert_close(TotalCorrelationRegulariser(2.0, 3.0, 4.0)(found), weighted)


def test_total_correlation_of_all_images_is_exact() -> None:
    """If the batch is the training set, q(z) is the mixture of its posteriors, and its marginals are theirs."""
    found = latents(num_images=16)
    parts = TotalCorrelationRegulariser().terms(found)
    base = found.q.base_dist  # type: ignore[attr-defined]
    log_qz = MixtureSameFamily(Categorical(torch.ones(16)), found.q).log_prob(found.z)
    marginals = MixtureSameFamily(Categorical(torch.ones(3, 16)), Normal(base.loc.T, base.scale.T)).log_prob(found.z)
    torch.testing.assert_close(parts["mutual_information"], found.q.log_prob(found.z) - log_qz)
    torch.testing.assert_close(parts["total_correlation"], log_qz - marginals.sum(1))


def test_the_stratified_estimate_of_q_is_unbiased() -> None:
    """Over all batches that hold an image, drawn from a training set of six."""
    everything = latents(batch_size=6)
    mean, scale = everything.q.base_dist.loc, everything.q.base_dist.scale  # type: ignore[attr-defined]
    z = everything.z[:1]
    estimates = []
    for others in itertools.combinations(range(1, 6), 2):
        index = torch.tensor([0, *others])
        q = Independent(Normal(mean[index], scale[index]), 1)
        batch = LatentBatch(q, z.expand(3, 3), everything.prior, everything.kl[index], num_images=6)
        estimates.append(
            (q.log_prob(z.expand(3, 3)) - TotalCorrelationRegulariser().terms(batch)["mutual_information"])[0].exp()
        )
    exact = MixtureSameFamily(Categorical(torch.ones(6)), everything.q).log_prob(z).exp()
    torch.testing.assert_close(torch.stack(estimates).mean(), exact[0])


def test_the_estimate_of_mutual_information_is_too_high_and_at_most_log_n() -> None:
    """As its docstring and its unit in the table of losses say."""
    everything = latents(batch_size=6, num_images=6)
    mean, scale = everything.q.base_dist.loc, everything.q.base_dist.scale  # type: ignore[attr-defined]
    exact = TotalCorrelationRegulariser().terms(everything)["mutual_information"]
    for i in range(6):
        estimates = []
        for others in itertools.combinations([j for j in range(6) if j != i], 2):
            index = torch.tensor([i, *others])
            q = Independent(Normal(mean[index], scale[index]), 1)
            z = everything.z[i].expand(3, 3)
            batch = LatentBatch(q, z, everything.prior, everything.kl[index], num_images=6)
            estimates.append(TotalCorrelationRegulariser().terms(batch)["mutual_information"][0])
        assert torch.stack(estimates).mean() > exact[i]
        assert torch.stack(estimates).max() <= math.log(6) + 1e-5
    assert VAE.loss_units["mutual_information"] == "nats, biased up"
    assert VAE.loss_units["total_correlation"] == "nats, biased"


def test_total_correlation_takes_full_covariances() -> None:
    """Of one image q(z) is its posterior: no mutual information, and the correlation of a normal, -log(1 - r^2) / 2."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
    q = MultivariateNormal(torch.zeros(20_000, 2), covariance)
    torch.manual_seed(0)
    z = q.sample()
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    one = [
        LatentBatch(MultivariateNormal(torch.zeros(1, 2), covariance), z_i[None], prior, z_i[:1]) for z_i in z[:3000]
    ]
    parts = [TotalCorrelationRegulariser(num_images=1).terms(found) for found in one]
    assert all(part["mutual_information"].abs() < 1e-5 for part in parts)
    correlation = torch.cat([part["total_correlation"] for part in parts])
    assert correlation.mean() == pytest.approx(-math.log(1 - 0.64) / 2, abs=5 * float(correlation.std()) / 3000**0.5)


def test_total_correlation_says_what_it_needs() -> None:
    with pytest.raises(ValueError, match=r"num_images=None\): the size of the training set is unknown; pass it"):
        TotalCorrelationRegulariser()(latents())
    found = latents(num_images=100)
    found.q = Independent(StudentT(torch.ones(16, 3)), 1)
    with pytest.raises(ValueError, match="TotalCorrelationRegulariser needs a normal posterior"):
        TotalCorrelationRegulariser()(found)


def test_the_data_say_how_many_images_there_are(make_trainer: Callable, data: ImageDataModule) -> None:
    model = build(TotalCorrelationRegulariser())
    make_trainer(max_epochs=1, limit_train_batches=2).fit(model, datamodule=data)
    assert model._num_training_images == data.num_images("train")


def test_terms_are_logged_in_validation(make_trainer: Callable, data: ImageDataModule) -> None:
    trainer = make_trainer(max_epochs=1, limit_train_batches=2)
    trainer.fit(build(TotalCorrelationRegulariser()), datamodule=data)
    metrics = trainer.callback_metrics
    parts = [metrics[f"val/{name}"] for name in ("mutual_information", "total_correlation", "dimension_kl")]
    assert sum(parts) == pytest.approx(metrics["val/kl"].item(), abs=0.3)


def test_mmd_of_normals_with_a_gaussian_kernel_is_known() -> None:
    """E k(z, z') = (h^2 / (h^2 + v))^(d/2) exp(-|m|^2 / (2 (h^2 + v))), if z - z' is N(m, v I)."""
    dim, shift, variance, h2 = 2, 1.5, 0.25, 2.0
    torch.manual_seed(0)
    prior = Independent(Normal(torch.zeros(dim), torch.ones(dim)), 1)
    mmd, kl = MMDRegulariser(1.0, kernel=GaussianKernel()), torch.zeros(500)
    batches = [LatentBatch(prior, shift + 0.5 * torch.randn(500, dim), prior, kl) for _ in range(30)]
    estimates = torch.stack([mmd.terms(batch)["mmd"].mean() for batch in batches])

    def mean_kernel(m: float, v: float) -> float:
        return (h2 / (h2 + v)) ** (dim / 2) * math.exp(-dim * m**2 / (2 * (h2 + v)))

    exact = mean_kernel(0, 2 * variance) + mean_kernel(0, 2) - 2 * mean_kernel(shift, 1 + variance)
    assert estimates.mean() == pytest.approx(exact, abs=5 * float(estimates.std()) / 30**0.5)
    assert estimates.std() / 30**0.5 < 0.02 * exact


@pytest.mark.parametrize("kernel", [GaussianKernel(), InverseMultiquadricKernel()])
def test_mmd_of_the_prior_itself_is_zero_on_average(kernel: GaussianKernel) -> None:
    torch.manual_seed(0)
    prior = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    kl = torch.zeros(40)
    batches = [LatentBatch(prior, prior.sample(torch.Size([40])), prior, kl) for _ in range(200)]
    found = torch.stack([MMDRegulariser(1.0, kernel=kernel)(batch).mean() for batch in batches])
    assert abs(found.mean()) < 4 * found.std() / 200**0.5
    assert kernel(torch.zeros(1), 4) == 1


def test_mmd_pulls_the_latents_to_the_prior() -> None:
    torch.manual_seed(0)
    z = nn.Parameter(2 + 0.1 * torch.randn(100, 2))
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        MMDRegulariser(10.0)(LatentBatch(prior, z, prior, z[:, 0])).mean().backward()
        optimizer.step()
    assert z.mean(0).abs().max() < 0.3
    assert (z.std(0) - 1).abs().max() < 0.3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BetaRegulariser(0), "beta=0: it must be positive"),
        (lambda: WarmUpRegulariser(0), "images=0: it must be positive"),
        (lambda: CyclicalRegulariser(10, cycles=0), "cycles=0: it must be at least 1"),
        (lambda: CyclicalRegulariser(10, ramp=1.5), r"ramp=1.5: it must be in \(0, 1\]"),
        (lambda: FreeBitsRegulariser(-1), "nats=-1: it must be positive"),
        (lambda: CapacityRegulariser(1, 0, 10), "nats=0: it must be positive"),
        (lambda: TotalCorrelationRegulariser(num_images=0), "num_images=0: it must be at least 1"),
        (lambda: MMDRegulariser(0), "weight=0: it must be positive"),
        (lambda: MMDRegulariser(1, -1), "kl_weight=-1: it must be at least 0"),
        (lambda: GaussianKernel(0), "scale=0: it must be positive"),
        (lambda: InverseMultiquadricKernel(()), r"scales=\(\): it must be a list of at least one width"),
        (lambda: InverseMultiquadricKernel((1.0, -1.0)), r"scales=-1.0: it must be positive"),
    ],
)
def test_numbers_without_meaning_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
