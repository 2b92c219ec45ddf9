"""Every likelihood is a density or a probability, has the mean and the samples that it says, and a mass in each bin."""

import itertools
import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

from lit_generative.data import ImageDataModule
from lit_generative.description import describe, rebuild
from lit_generative.nn import ConvDecoder, MLPDecoder
from lit_generative.vae.likelihoods import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticImages,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    GaussianLikelihood,
    GaussianPerImageLikelihood,
    GaussianPerPixelLikelihood,
    LaplaceLikelihood,
    Likelihood,
)

LEVELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1
WITH_MASS: list[Likelihood] = [
    ContinuousBernoulliLikelihood(),
    GaussianLikelihood(),
    GaussianLikelihood(0.002),
    LaplaceLikelihood(),
    LaplaceLikelihood(0.002),
    GaussianPerImageLikelihood(),
    GaussianPerPixelLikelihood(),
    DiscretizedLogisticLikelihood(),
    DiscretizedLogisticMixtureLikelihood(3),
]
NAMES = [f"{type(likelihood).__name__}-{i}" for i, likelihood in enumerate(WITH_MASS)]


@pytest.fixture(scope="module")
def clothes() -> Tensor:
    return next(iter(ImageDataModule().loader("test", batch_size=8)))["image"]


def decoded_for(likelihood: Likelihood, x: Tensor, size: float = 1.0) -> Tensor:
    """Make random decoder outputs for images like ``x``."""
    torch.manual_seed(0)
    return size * torch.randn(len(x), likelihood.channels(x.shape[1]), *x.shape[2:])


@pytest.mark.parametrize("likelihood", WITH_MASS, ids=NAMES)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_masses_of_the_levels_sum_to_one(likelihood: Likelihood, size: float) -> None:
    x = LEVELS.float()[:, None, None, None]
    decoded = decoded_for(likelihood, x[:1], size).expand(256, -1, -1, -1)
    total = likelihood.log_mass(likelihood(decoded), x).exp().double().sum()
    assert total.item() == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize(
    ("likelihood", "cdf"),
    [(GaussianLikelihood(0.1), stats.norm(0.3, 0.1).cdf), (LaplaceLikelihood(0.1), stats.laplace(0.3, 0.1).cdf)],
)
def test_masses_are_differences_of_the_cdf(likelihood: Likelihood, cdf: Any) -> None:
    x = LEVELS.float()[:, None, None, None]
    found = likelihood.log_mass(likelihood(torch.full((256, 1, 1, 1), 0.3)), x).exp()
    edges = torch.as_tensor(cdf(torch.cat([LEVELS[:1] - 99, (LEVELS[1:] + LEVELS[:-1]) / 2, LEVELS[-1:] + 99])))
    torch.testing.assert_close(found.double(), edges.diff(), atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize(
    ("likelihood", "slope"),
    [(GaussianLikelihood(1e-3), None), (LaplaceLikelihood(1e-3), 1e3)],
    ids=["gaussian", "laplace"],
)
@pytest.mark.parametrize("loc", [-5.0, 5.0])
def test_masses_far_from_the_mean_are_finite_and_right(likelihood: Likelihood, slope: float | None, loc: float) -> None:
    x = torch.tensor([-0.5, 0.5]).mul(127.5).round().div(127.5)[:, None, None, None]
    found = likelihood.log_mass(likelihood(torch.full((2, 1, 1, 1), loc)), x).double()
    nearest = (x.double().flatten() - loc).abs() - 1 / 255  # where all the mass of a bin far out is
    if slope is None:  # log of the normal's tail, Phi(-t) = phi(t) / t (1 - 1 / t^2 + ...)
        t = nearest / 1e-3
        expected = -(t**2) / 2 - torch.log(t * math.sqrt(2 * math.pi))
    else:
        expected = -slope * nearest - math.log(2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-2)


def test_fine_densities_and_masses_agree(clothes: Tensor) -> None:
    likelihood, inner = GaussianLikelihood(0.5), clothes.clamp(-0.95, 0.95).mul(127.5).round().div(127.5)
    p = likelihood(torch.zeros_like(inner))
    approximate = p.log_prob(inner) + inner[0].numel() * math.log(2 / 255)
    torch.testing.assert_close(likelihood.log_mass(p, inner), approximate, atol=0.05, rtol=0)


@pytest.mark.parametrize("likelihood", [*WITH_MASS, BernoulliLikelihood()], ids=[*NAMES, "BernoulliLikelihood"])
@pytest.mark.parametrize("channels", [1, 3])
def test_means_and_samples_agree(likelihood: Likelihood, channels: int) -> None:
    p = likelihood(decoded_for(likelihood, torch.zeros(1, channels, 2, 2), 0.5))
    x = p.sample(torch.Size([20_000])).double()
    assert x.shape == (20_000, 1, channels, 2, 2)
    error = (x.mean(0) - p.mean) / (x.std(0) / math.sqrt(len(x)))
    is_clipped_mixture = isinstance(likelihood, DiscretizedLogisticMixtureLikelihood) and channels > 1
    assert error[:, : 1 if is_clipped_mixture else channels].abs().max() < 5  # later channels: a test of their own
    if likelihood.is_discrete or isinstance(likelihood, BernoulliLikelihood | ContinuousBernoulliLikelihood):
        assert x.abs().max() <= 1
    if likelihood.is_discrete:
        assert ((x + 1) * 127.5 - ((x + 1) * 127.5).round()).abs().max() < 1e-3


def mixture(components: int, channels: int, scale: float) -> tuple[DiscretizedLogisticMixtureLikelihood, Tensor]:
    """A mixture of narrow logistics around moderate locations, whose channels depend on each other."""
    torch.manual_seed(1)
    likelihood = DiscretizedLogisticMixtureLikelihood(components)
    parameters = 0.3 * torch.randn(1, components, likelihood.channels(channels) // components, 1, 1)
    parameters[:, :, 1 + channels : 1 + 2 * channels] += math.log(scale)
    return likelihood, parameters.flatten(1, 2)


def test_mean_of_a_mixture_is_that_of_its_samples_where_nothing_is_clipped() -> None:
    likelihood, decoded = mixture(4, 3, 0.03)
    p = likelihood(decoded)
    x = p.sample(torch.Size([40_000])).double()
    error = (x.mean(0) - p.mean) / (x.std(0) / math.sqrt(len(x)))
    assert error.abs().max() < 5


def test_conditionals_of_a_mixture_sum_to_one() -> None:
    likelihood, decoded = mixture(3, 3, 0.1)
    p = likelihood(decoded.double())
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        least = torch.promote_types(dtype, torch.float32)
        assert likelihood(decoded.to(dtype)).log_prob(torch.zeros(1, 3, 1, 1)).dtype == least
    levels = LEVELS.float()

    def marginal(first: float, second: float) -> float:
        """Sum over the third channel."""
        x = torch.stack([torch.full((256,), first), torch.full((256,), second), levels], 1)[:, :, None, None]
        return p.log_prob(x).double().exp().sum().item()

    narrow, wide = mixture(3, 2, 0.1)
    pairs = torch.cartesian_prod(levels, levels)[:, :, None, None]
    assert narrow(wide).log_prob(pairs).double().exp().sum().item() == pytest.approx(1, abs=1e-4)
    # p(r, g) summed over b is p(r, g) of the mixture without b
    sizes = [1, 3, 3, 3]
    logits, loc, scale, coefficients = decoded.unflatten(1, (3, -1)).split(sizes, dim=2)
    without = torch.cat([logits, loc[:, :, :2], scale[:, :, :2], coefficients[:, :, :1]], dim=2).flatten(1, 2)
    for r, g in itertools.product((0, 130), (90, 255)):
        pair = levels[[r, g]][None, :, None, None]
        expected = DiscretizedLogisticMixtureLikelihood(3)(without).log_prob(pair).exp().item()
        assert marginal(levels[r].item(), levels[g].item()) == pytest.approx(expected, rel=1e-3)


def test_channels_depend_on_those_before_as_in_equation_3() -> None:
    m, alpha, beta, gamma = torch.tensor([0.1, -0.2, 0.3]), 0.5, -0.4, 0.2  # of green on red, of blue on red and green
    coefficients = torch.tensor([alpha, beta, gamma]).atanh()
    decoded = torch.cat([torch.zeros(1), m, torch.full((3,), math.log(0.05)), coefficients])[None, :, None, None]
    r, g, b = x = LEVELS.float()[[200, 70, 90]]
    locations = torch.stack([m[0], m[1] + alpha * r, m[2] + beta * r + gamma * g])
    expected = DiscretizedLogisticImages(locations, torch.tensor(0.05)).log_prob(torch.stack([r, g, b])).sum()
    found = DiscretizedLogisticMixtureLikelihood(1)(decoded).log_prob(x[None, :, None, None])
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_mixture_of_one_without_coefficients_is_the_discretised_logistic(clothes: Tensor) -> None:
    single, loc = DiscretizedLogisticLikelihood(), 0.5 * clothes.expand(-1, 3, -1, -1)
    log_scale = torch.full_like(loc, single.log_scale.item())
    decoded = torch.cat([torch.randn_like(loc[:, :1]), loc, log_scale, torch.zeros_like(loc)], 1)
    x = clothes.expand(-1, 3, -1, -1)
    torch.testing.assert_close(DiscretizedLogisticMixtureLikelihood(1)(decoded).log_prob(x), single(loc).log_prob(x))


def test_a_mixture_learns_that_channels_depend_on_each_other() -> None:
    """Gray pixels in colour: once red is known, so are the others."""
    torch.manual_seed(0)
    likelihood, x = (
        DiscretizedLogisticMixtureLikelihood(2),
        ((torch.rand(64, 1, 4, 4) * 255).round() / 127.5 - 1).repeat(1, 3, 1, 1),
    )
    decoded = (0.1 * torch.randn(1, likelihood.channels(3), 1, 1)).requires_grad_()
    optimizer = torch.optim.Adam([decoded], lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        loss = -likelihood(decoded.expand(64, -1, 4, 4)).log_prob(x).mean()
        loss.backward()
        optimizer.step()
    bits = loss.item() / (16 * math.log(2))  # a pixel; 8 for red alone, 24 for channels that know nothing of each other
    assert bits < 16


def test_scales_per_pixel_and_image_stay_within_their_bounds() -> None:
    x = torch.zeros(2, 3, 4, 4)
    for likelihood in (GaussianPerPixelLikelihood(0.05, 2), GaussianPerImageLikelihood(0.05, 2)):
        decoded = decoded_for(likelihood, x, 100)
        scale = likelihood(decoded).base_dist.scale
        assert 0.05 * 0.9999 <= scale.min().item() <= scale.max().item() <= 2 * 1.0001
        start = likelihood(0 * decoded).base_dist.scale
        torch.testing.assert_close(start, torch.full_like(start, math.sqrt(0.05 * 2)))
    scale = GaussianPerImageLikelihood()(decoded_for(GaussianPerImageLikelihood(), x)).base_dist.scale
    assert [len(of_image.unique()) for of_image in scale] == [1, 1]
    assert scale[0].mean() != scale[1].mean()


@pytest.mark.parametrize(
    ("likelihood", "best"),
    [(GaussianPerPixelLikelihood(), (8, 784)), (GaussianPerImageLikelihood(), (8, 1))],
    ids=["pixel", "image"],
)
def test_more_scales_make_likelier_images(likelihood: Likelihood, best: tuple[int, int], clothes: Tensor) -> None:
    blurred = torch.nn.functional.avg_pool2d(clothes, 3, 1, 1)
    error = (clothes - blurred).square()
    wanted = (error if best[1] > 1 else error.mean((1, 2, 3), keepdim=True).expand_as(error)).sqrt().clamp(0.011, 0.99)
    share = torch.log(wanted / 0.01) / math.log(1 / 0.01)
    log_p = likelihood(torch.cat([blurred, torch.logit(share)], 1)).log_prob(clothes)
    one = GaussianLikelihood(error.mean().sqrt().item())(blurred).log_prob(clothes)
    assert log_p.mean() > one.mean()


@pytest.mark.parametrize("likelihood", WITH_MASS, ids=NAMES)
@pytest.mark.parametrize("decoder", [MLPDecoder, ConvDecoder])
@pytest.mark.parametrize("channels", [1, 3])
def test_decoders_put_out_what_a_likelihood_needs(
    likelihood: Likelihood, decoder: Any, channels: int, clothes: Tensor
) -> None:
    x = clothes.expand(-1, channels, -1, -1)
    options = {"hidden": (8,)} | ({"widths": (4,)} if decoder is ConvDecoder else {})
    shape = (channels, 28, 28)
    torch.manual_seed(0)
    network = decoder(shape, 4, output_channels=likelihood.channels(channels), **options)
    p = likelihood(network(torch.randn(8, 4)))
    log_p = p.log_prob(x)
    log_p.sum().backward()
    assert log_p.shape == (8,)
    assert log_p.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
    assert (likelihood.log_mass(p, x) < 0).all()
    assert p.mean.shape == p.sample().shape == x.shape
    rebuilt = rebuild(describe(likelihood))
    rebuilt.load_state_dict(likelihood.state_dict())
    again = rebuild(describe(network))
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(rebuilt(again(torch.zeros(1, 4))).mean, likelihood(network(torch.zeros(1, 4))).mean)


@pytest.mark.parametrize(
    "likelihood", [GaussianPerPixelLikelihood(), GaussianPerImageLikelihood(), DiscretizedLogisticMixtureLikelihood(5)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_too_few_channels_are_an_error_that_says_how_many_are_needed(likelihood: Likelihood, channels: int) -> None:
    x = torch.zeros(2, channels, 4, 4)
    with pytest.raises(ValueError, match=f"set the decoder's output_channels to {likelihood.channels(channels)}"):
        likelihood(torch.zeros_like(x)).log_prob(x)


def test_too_many_channels_are_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"makes GaussianLikelihood one of .* set the decoder's output_channels to 1"):
        GaussianLikelihood()(torch.zeros(2, 3, 4, 4)).log_prob(torch.zeros(2, 1, 4, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianPerPixelLikelihood(0.1, 0.1), r"lowest=0.1: it must be in \(0, 0.1\)"),
        (lambda: GaussianPerImageLikelihood(0), r"lowest=0: it must be in \(0, 1\)"),
        (lambda: LaplaceLikelihood(0.0), "scale=0.0: it must be positive"),
        (lambda: DiscretizedLogisticMixtureLikelihood(0), "components=0: it must be at least 1"),
        (lambda: MLPDecoder((1, 2, 2), 2, output_channels=0), "output_channels=0: it must be at least 1"),
        (lambda: ConvDecoder((1, 2, 2), 2, output_channels=-1), "output_channels=-1: it must be at least 1"),
    ],
)
def test_meaningless_arguments_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
