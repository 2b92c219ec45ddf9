"""The VQ-VAE: a contract as every model's, and the bound on the likelihood."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vae_contract import assert_draws_images, assert_gradients_reach_every_parameter, draw, on_levels, rebuilt
from vq_models import build

from lit_generative import ImageDataModule
from lit_generative.nn import CodeTransformer, SpatialDecoder, SpatialEncoder
from lit_generative.vae import VQVAE, Codebook, DiscretizedLogisticLikelihood, GaussianLikelihood

SHAPES = [(1, 28, 28), (3, 20, 13)]
CASES = [(num_classes, shape) for num_classes in (None, 10) for shape in SHAPES]
NAMES = [f"{'labels' if k else 'plain'}-{'x'.join(map(str, shape))}" for k, shape in CASES]


@pytest.fixture(scope="module")
def clothes() -> dict[str, Tensor]:
    return next(iter(ImageDataModule().loader("test", batch_size=6)))


@pytest.fixture(params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest, clothes: dict[str, Tensor]) -> tuple[VQVAE, Tensor, Tensor | None]:
    """A model, six real images of its shape on the 256 levels, and labels if it takes them."""
    num_classes, shape = request.param
    x = on_levels(clothes["image"], shape)
    return build(num_classes, shape), x, clothes["label"] if num_classes else None


def test_losses_are_per_image_and_add_up(case: tuple[VQVAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    losses = model.eval().losses(x, y)
    assert all(value.shape == (6,) and value.isfinite().all() for value in losses.values())
    torch.testing.assert_close(losses["loss"], losses["nll"] + 0.25 * losses["commitment"] + losses["prior_nll"])
    torch.testing.assert_close(losses["nelbo"], losses["nll"] + losses["prior_nll"])
    torch.testing.assert_close(losses["bits_per_dim"], losses["nelbo"] / (x[0].numel() * math.log(2)))
    e = model.encode(x, y)
    codes = model.codes(x, y)
    q = model.codebook.codes[codes].movedim(3, 1)
    torch.testing.assert_close(losses["commitment"], (e - q).square().flatten(1).sum(1))
    torch.testing.assert_close(losses["nll"], -model.decode(q, y).log_prob(x), rtol=1e-4, atol=1e-2)
    shares = torch.bincount(codes.flatten()) / codes.numel()
    entropy = -sum(p * math.log(p) for p in shares.tolist() if p)
    torch.testing.assert_close(losses["perplexity"], torch.full((6,), math.exp(entropy)))


def test_losses_of_an_image_do_not_depend_on_the_others(case: tuple[VQVAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    losses, alone = model.eval().losses(x, y), model.losses(x[2:3], None if y is None else y[2:3])
    for name in ("loss", "nll", "prior_nll", "commitment"):
        torch.testing.assert_close(alone[name], losses[name][2:3], rtol=1e-4, atol=1e-2)


def test_gradients_reach_every_parameter_and_those_of_the_prior_no_other(
    case: tuple[VQVAE, Tensor, Tensor | None],
) -> None:
    model, x, y = case
    losses = model.eval().losses(x, y)  # no updates of the codebook
    names, parameters = zip(*model.named_parameters(), strict=True)
    by_prior = torch.autograd.grad(losses["prior_nll"].sum(), parameters, retain_graph=True, allow_unused=True)
    assert {name.partition(".")[0] for name, g in zip(names, by_prior, strict=True) if g is not None} == {"code_prior"}
    assert_gradients_reach_every_parameter(model, losses["loss"])


def test_samples_are_images_and_the_generator_decides_them(case: tuple[VQVAE, Tensor, Tensor | None]) -> None:
    book = case[0].codebook.codes.clone()
    assert_draws_images(*case)
    assert torch.equal(case[0].codebook.codes, book)


def test_a_rebuilt_model_is_the_same(case: tuple[VQVAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    model.losses(x, y)  # the codebook is not as it started
    again = rebuilt(model)
    assert torch.equal(draw(model, 6, y), draw(again, 6, y))
    assert torch.equal(model.codebook.counts, again.codebook.counts)
    assert torch.equal(model.eval().losses(x, y)["loss"], again.eval().losses(x, y)["loss"])


def test_every_evaluation_of_the_prior_is_counted(case: tuple[VQVAE, Tensor, Tensor | None]) -> None:
    model, _, y = case
    calls = []
    modules: list[nn.Module] = [model.code_prior.head, model.decoder]
    for module in modules:
        module.register_forward_hook(lambda *_: calls.append(1))
    model.sample(6, y)
    assert len(calls) == model.network_evaluations == math.prod(model.encoder.grid) + 1
    assert model.sampling["evaluations"] == len(calls)
    assert model.sampling["temperature"] == 1.0


def test_bf16_training_and_sampling_are_finite(case: tuple[VQVAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    model.precision = "bf16-mixed"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = model.losses(x, y)
    losses["loss"].mean().backward()
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(buffer.dtype == torch.float32 for buffer in model.codebook.buffers())
    assert model.sample(6, y).isfinite().all()


def test_the_bound_is_above_the_exact_likelihood(clothes: dict[str, Tensor]) -> None:
    """Of a grid of 2 x 1 codes all can be summed over, so that P(x) is known."""
    x = F.interpolate(clothes["image"], (8, 4), mode="area").mul(127.5).round() / 127.5
    x = ((x + 1) * 127.5).round() / 127.5 - 1
    for likelihood in (DiscretizedLogisticLikelihood(), GaussianLikelihood()):
        model = build(shape=(1, 8, 4), likelihood=likelihood).eval()
        assert model.encoder.grid == (2, 1)
        bound = model.likelihoods(x, evaluations=10)["bound"]
        codes = torch.cartesian_prod(torch.arange(16), torch.arange(16)).view(256, 2, 1)
        with torch.no_grad():
            p = model.decode(model.codebook.lookup(codes))
            log_p = torch.stack([model.likelihood.log_mass(p, image.expand(256, -1, -1, -1)) for image in x], dim=1)
            exact = -(log_p - model.prior_nll(codes)[:, None]).logsumexp(0)
        assert torch.exp(-model.prior_nll(codes)).sum().item() == pytest.approx(1, abs=1e-4)
        assert (bound > exact).all()
        assert (bound < exact + 10).all()  # nats: 256 codes are hardly told apart by an untrained decoder
        if likelihood.is_discrete:
            torch.testing.assert_close(bound, model.losses(x)["nelbo"], rtol=1e-4, atol=1e-2)


class Plain(VQVAE):
    def objective(self, nll: Tensor, commitment: Tensor, prior_nll: Tensor) -> Tensor:
        return nll + prior_nll


def test_a_loss_of_ones_own_is_one_line(clothes: dict[str, Tensor]) -> None:
    losses = build(cls=Plain).eval().losses(clothes["image"])
    torch.testing.assert_close(losses["loss"], losses["nelbo"])


def test_temperature_makes_samples_likelier() -> None:
    model = build()
    nn.init.normal_(model.code_prior.head.weight)

    def mean_nll(temperature: float) -> float:
        torch.manual_seed(0)
        codes = model.code_prior.sample(50, (7, 7), None, temperature)
        return model.prior_nll(codes).mean().item()

    assert mean_nll(0.5) < mean_nll(1.0) - 5
    model.temperature = 1e-4
    draws = [model.sample(2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    torch.testing.assert_close(*draws)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, r"beta=-1\.0: it must be at least 0; 0.25 is usual"),
        ({"temperature": 0.0}, r"temperature=0\.0: it must be positive"),
        ({"code_prior": CodeTransformer(8, 16)}, "code_prior has num_codes=8, but the model has 16: make them equal"),
        ({"num_classes": 3}, "code_prior has num_classes=None, but the model has 3: make them equal"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"code_prior": CodeTransformer(16, 16), "codebook": Codebook(16, 4)} | options
    with pytest.raises(ValueError, match=message):
        VQVAE(SpatialEncoder((1, 8, 8), 4), SpatialDecoder((1, 8, 8), 4), GaussianLikelihood(), **parts)
