"""One contract for every VAE: each network with each likelihood, with labels and without, on images of any shape."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, kl_divergence
from vae_contract import assert_draws_images, assert_gradients_reach_every_parameter, draw, on_levels, rebuilt

from lit_generative import VAE, ImageDataModule
from lit_generative.nn import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder
from lit_generative.vae import (
    IWAE,
    AggregatePrior,
    BernoulliLikelihood,
    BetaRegulariser,
    DiscretizedLogisticLikelihood,
    FreeBitsRegulariser,
    FullNormalPosterior,
    GaussianLikelihood,
    InverseAutoregressivePosterior,
    MixtureOfGaussiansPrior,
    MMDRegulariser,
    RealNVPPrior,
    TotalCorrelationRegulariser,
    VampPrior,
    WarmUpRegulariser,
)

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 20, 13)]
LIKELIHOODS: dict[str, Callable[[], Any]] = {
    "bernoulli": BernoulliLikelihood,
    "gaussian": GaussianLikelihood,
    "gaussian-0.1": lambda: GaussianLikelihood(0.1),
    "logistic": DiscretizedLogisticLikelihood,
}
NETWORKS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "mlp": (MLPEncoder, MLPDecoder, {"hidden": (32,)}),
    "conv": (ConvEncoder, ConvDecoder, {"widths": (8, 16)}),
}
LATENT_DIM = 4
# a VAE's and its encoder's arguments; the class is under "class"
VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "": dict,
    "warm-up": lambda: {"regulariser": WarmUpRegulariser(100)},
    "free-bits": lambda: {"regulariser": FreeBitsRegulariser(0.001)},
    "total-correlation": lambda: {"regulariser": TotalCorrelationRegulariser(num_images=100)},
    "mmd": lambda: {"regulariser": MMDRegulariser(100.0)},
    "aggregate": lambda: {"aggregate_prior": AggregatePrior(2)},
    "mixture": lambda: {"prior_model": MixtureOfGaussiansPrior(LATENT_DIM, 3)},
    "vamp": lambda: {"prior_model": VampPrior((1, 28, 28), 3)},
    "real-nvp": lambda: {"prior_model": RealNVPPrior(LATENT_DIM, 2, 8)},
    "full": lambda: {"posterior": FullNormalPosterior()},
    "inverse-autoregressive": lambda: {"posterior": InverseAutoregressivePosterior(LATENT_DIM, 2, 8)},
    "iwae": lambda: {"class": IWAE},
    "iwae-flows": lambda: {
        "class": IWAE,
        "posterior": InverseAutoregressivePosterior(LATENT_DIM, 2, 8),
        "prior_model": RealNVPPrior(LATENT_DIM, 2, 8),
    },
}
CASES: list[Any] = list(product(NETWORKS, LIKELIHOODS, (None, 10), SHAPES, [""]))
CASES += list(product(["mlp"], ["gaussian"], (None, 10), SHAPES[:1], list(VARIANTS)[1:]))
CASES.remove(("mlp", "gaussian", 10, SHAPES[0], "vamp"))  # whose encoder must not need labels
NAMES = [
    f"{n}-{like}-{'labels' if k else 'plain'}-{'x'.join(map(str, s))}-{v}".strip("-") for n, like, k, s, v in CASES
]


def build(
    network: str, likelihood: str, num_classes: int | None, shape: tuple[int, int, int], variant: str = ""
) -> VAE:
    """Make a VAE whose weights are all away from where they start, some of which is zero."""
    torch.manual_seed(0)
    encoder, decoder, options = NETWORKS[network]
    arguments = VARIANTS[variant]()
    encoder_options = {name: arguments.pop(name) for name in ("posterior",) if name in arguments}
    model = arguments.pop("class", VAE)(
        encoder(shape, LATENT_DIM, num_classes=num_classes, **options, **encoder_options),
        decoder(shape, LATENT_DIM, num_classes=num_classes, **options),
        LIKELIHOODS[likelihood](),
        LATENT_DIM,
        num_classes=num_classes,
        **arguments,
    )
    model.images_seen = 50
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def clothes() -> dict[str, Tensor]:
    return next(iter(ImageDataModule(subset=50).loader("test", batch_size=6)))


@pytest.fixture(params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest, clothes: dict[str, Tensor]) -> tuple[VAE, Tensor, Tensor | None]:
    """A model, six real images of its shape (tinted if in colour) on the 256 levels, and labels if it takes them."""
    *_, num_classes, shape, _ = request.param
    x = on_levels(clothes["image"], shape)
    return build(*request.param), x, clothes["label"] if num_classes else None


def without(y: Tensor | None) -> Tensor | None:
    """Labels where none are wanted, and none where they are."""
    return torch.zeros(6, dtype=torch.long) if y is None else None


def test_losses_are_per_image_and_the_bound_is_their_sum(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    losses = model.losses(x, y)
    assert all(value.shape == (6,) and torch.isfinite(value).all() for value in losses.values())
    torch.testing.assert_close(losses["nelbo"], losses["nll"] + losses["kl"])
    if isinstance(model.regulariser, BetaRegulariser) and not isinstance(model, IWAE):
        torch.testing.assert_close(losses["nelbo"], losses["loss"])
    if isinstance(model.prior(), Independent) and not isinstance(model, IWAE) and model.encoder.head.posterior is None:
        assert (losses["kl"] >= 0).all()
        torch.testing.assert_close(losses["kl"], kl_divergence(model.encode(x, y), model.prior()))
    assert ("bits_per_dim" in losses) == model.likelihood.is_discrete
    if model.likelihood.is_discrete:
        torch.testing.assert_close(losses["bits_per_dim"], losses["nelbo"] / (x[0].numel() * math.log(2)))
        assert (losses["nll"] > 0).all()  # it is -log of a probability


def test_losses_of_an_image_do_not_depend_on_the_others(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    q, alone = model.encode(x, y), model.encode(x[2:3], None if y is None else y[2:3])
    torch.testing.assert_close(alone.mean, q.mean[2:3], atol=1e-5, rtol=1e-4)
    kl, kl_alone = (model.kl(found, model.prior(), found.mean) for found in (q, alone))
    torch.testing.assert_close(kl_alone, kl[2:3], atol=1e-4, rtol=1e-4)


def test_gradients_reach_every_parameter(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    assert_gradients_reach_every_parameter(model, model.losses(x, y)["loss"])


def test_samples_are_images_and_the_generator_decides_them(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    assert_draws_images(*case)


def test_labels_are_given_if_and_only_if_they_are_wanted(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, _, y = case
    message = "the model is unconditional" if y is None else r"a model of classes needs labels \(6,\)"
    with pytest.raises(ValueError, match=message):
        model.sample(6, without(y))


def test_a_rebuilt_model_draws_the_same_images(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, _, y = case
    assert torch.equal(draw(model, 6, y), draw(rebuilt(model), 6, y))


def test_likelihoods_are_two_bounds_in_order(case: tuple[VAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    found = model.likelihoods(x, y, evaluations=4, generator=torch.Generator().manual_seed(0))
    if not model.likelihood.has_mass:
        assert found == {}
        return
    assert found.keys() == {"bound", "importance_weighted"}
    assert (found["importance_weighted"] > 0).all()  # -log of a probability
    assert (found["importance_weighted"] <= found["bound"] + 1e-3).all()
    if model.likelihood.is_discrete:  # what is trained is of the same scale
        nelbo = torch.stack([model.losses(x, y)["nelbo"].detach() for _ in range(20)]).mean(0)
        torch.testing.assert_close(found["bound"], nelbo, rtol=0.1, atol=0)


@pytest.mark.parametrize("labels", [torch.arange(6) + 5, torch.arange(6) - 1, torch.arange(5), torch.ones(6, 1).long()])
def test_labels_that_are_no_classes_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^y has (labels|shape) .*(0 to 9|\(6,\))"):
        build("mlp", "gaussian", 10, (1, 28, 28)).sample(6, labels)


@pytest.mark.parametrize("n", [0, -3])
def test_no_images_is_no_number_of_samples(n: int) -> None:
    with pytest.raises(ValueError, match=f"n={n}: it must be at least 1"):
        build("mlp", "gaussian", None, (1, 28, 28)).sample(n)


def test_a_conditional_model_draws_what_the_labels_say() -> None:
    model = build("mlp", "gaussian", 10, (1, 28, 28))
    assert not torch.equal(*(draw(model, 1, torch.tensor([k])) for k in (0, 1)))


def test_without_a_generator_the_global_one_decides() -> None:
    model = build("mlp", "gaussian", None, (1, 28, 28))
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws += [model.sample(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[1], model.sample(2))


def test_kl_equals_its_monte_carlo_estimate(clothes: dict[str, Tensor]) -> None:
    model = build("conv", "gaussian", None, (1, 28, 28))
    with torch.no_grad():
        q = model.encode(clothes["image"])
        z = q.sample(torch.Size([20_000]))  # (20000, B, latent_dim)
        ratios = q.log_prob(z) - model.prior().log_prob(z)
        error = (ratios.mean(0) - model.kl(q, model.prior(), z[0])) / (ratios.std(0) / math.sqrt(len(z)))
    assert error.abs().max() < 5  # standard errors


class BetaVAE(VAE):
    def objective(self, nll: Tensor, kl: Tensor) -> Tensor:
        return nll + 4 * kl


def test_a_beta_vae_is_one_line(make_vae: Callable[..., VAE], clothes: dict[str, Tensor]) -> None:
    losses = make_vae(BetaVAE).losses(clothes["image"])
    torch.testing.assert_close(losses["loss"], losses["nll"] + 4 * losses["kl"])
    torch.testing.assert_close(losses["nelbo"], losses["nll"] + losses["kl"])  # the bound that is reported


class MixtureVAE(VAE):
    """A VAE whose prior is a learned mixture of normals, which has no KL in closed form."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, likelihood: GaussianLikelihood, latent_dim: int) -> None:
        super().__init__(encoder, decoder, likelihood, latent_dim)
        self.means = nn.Parameter(torch.zeros(3, latent_dim))

    def prior(self) -> Distribution:
        components = Independent(Normal(self.means, torch.ones_like(self.means)), 1)
        return MixtureSameFamily(Categorical(logits=torch.zeros(3)), components)

    def kl(self, q: Distribution, p: Distribution, z: Tensor) -> Tensor:
        return q.log_prob(z) - p.log_prob(z)


def test_a_prior_without_a_closed_form_is_two_hooks(clothes: dict[str, Tensor]) -> None:
    plain = build("mlp", "gaussian", None, (1, 28, 28))
    model = MixtureVAE(plain.encoder, plain.decoder, GaussianLikelihood(), LATENT_DIM)
    x = clothes["image"]
    q = plain.encode(x)
    estimates = model.kl(q, model.prior(), q.sample(torch.Size([20_000])))  # (20000, B)
    error = (estimates.mean(0) - plain.kl(q, plain.prior(), q.mean)) / (estimates.std(0) / math.sqrt(len(estimates)))
    assert error.abs().max() < 5  # three components in one place are N(0, I)
    model.losses(x)["loss"].mean().backward()
    assert model.means.grad is not None
    assert model.means.grad.any()
    assert model.sample(5).shape == (5, 1, 28, 28)


def test_a_vae_learns_real_images(make_vae: Callable[..., VAE], clothes: dict[str, Tensor]) -> None:
    model, x = make_vae(), clothes["image"]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    error_before = (model.reconstruct(x) - x).square().mean()
    for _ in range(40):
        optimizer.zero_grad()
        model.losses(x)["loss"].mean().backward()
        optimizer.step()
    assert (model.reconstruct(x) - x).square().mean() < 0.3 * error_before
