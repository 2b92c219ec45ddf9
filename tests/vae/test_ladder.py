"""The ladder VAE: its bound against torch's and against importance weighting, and the contract of every model."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F
from vae_contract import assert_draws_images, assert_gradients_reach_every_parameter, draw, on_levels, rebuilt

from lit_generative import ImageDataModule
from lit_generative.nn import LadderNetwork
from lit_generative.vae import BernoulliLikelihood, DiscretizedLogisticLikelihood, LadderVAE
from lit_generative.vae import ladder as module
from lit_generative.vae.bounds import Draw

SHAPES = [(1, 28, 28), (3, 20, 13)]
CASES = [(shape, num_classes) for shape in SHAPES for num_classes in (None, 10)]


@pytest.fixture(scope="module")
def clothes() -> dict[str, Tensor]:
    return next(iter(ImageDataModule().loader("test", batch_size=6)))


def build(
    shape: tuple[int, int, int] = (1, 28, 28),
    num_classes: int | None = None,
    blocks: str = "14x1,7x2,1x1",
    widths: tuple[int, ...] = (8, 12, 16),
    **options: Any,
) -> LadderVAE:
    """A small ladder VAE whose weights are all away from where they start, some of which is zero."""
    torch.manual_seed(0)
    network = LadderNetwork(shape, blocks, widths, hidden=4, latent_channels=2, num_classes=num_classes)
    model = LadderVAE(network, DiscretizedLogisticLikelihood(), num_classes=num_classes, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.fixture(params=CASES, ids=lambda case: f"{'x'.join(map(str, case[0]))}-{'labels' if case[1] else 'plain'}")
def case(request: pytest.FixtureRequest, clothes: dict[str, Tensor]) -> tuple[LadderVAE, Tensor, Tensor | None]:
    """A model, six real images of its shape (tinted if in colour) on the 256 levels, and labels if it takes them."""
    shape, num_classes = request.param
    x = on_levels(clothes["image"], shape)
    return build(shape, num_classes), x, clothes["label"] if num_classes else None


# ---------------------------------------------------------------- the bound


def test_losses_are_per_image_and_the_levels_add_up(case: tuple[LadderVAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    torch.manual_seed(1)
    losses = model.losses(x, y)
    assert all(value.shape == (6,) and torch.isfinite(value).all() for value in losses.values())
    torch.testing.assert_close(losses["loss"], losses["nll"] + losses["kl"])
    torch.testing.assert_close(losses["nelbo"], losses["loss"])
    torch.testing.assert_close(losses["bits_per_dim"], losses["nelbo"] / (x[0].numel() * math.log(2)))
    torch.manual_seed(1)
    per_level = model.kl_per_level(x, y)
    assert per_level.shape == (6, 4)
    assert (per_level > 0).all()
    torch.testing.assert_close(per_level.sum(1), losses["kl"])
    torch.manual_seed(1)
    _, levels = model.network(x, y)
    for level, kl in zip(levels, per_level.T, strict=True):
        torch.testing.assert_close(kl_divergence(level.q, level.p), kl)


def test_one_level_is_a_plain_vae(clothes: dict[str, Tensor]) -> None:
    """Of a single level, the bound is put together by hand: q, p and p(x|z) from the weights, KL and log p by torch."""
    model, x = build(blocks="1x1", widths=(8,)), clothes["image"]
    block: Any = model.network.decoder.blocks[0][0]  # type: ignore[union-attr, index]
    head: Any = model.network.head
    start = model.network.decoder.start[0].expand(6, -1, -1, -1)  # type: ignore[union-attr, index]

    def bottleneck(b: Any, h: Tensor) -> Tensor:
        for layer in (b.first, b.second, b.third, b.last):
            h = F.silu(h).flatten(1) @ layer.weight.flatten(1).T + layer.bias
        return h

    def normal(mean: Tensor, log_scale: Tensor) -> Independent:
        return Independent(Normal(mean, log_scale.exp()), 1)

    (features,) = model.network.ascend(x)  # type: ignore[operator]
    prior = bottleneck(block.prior, start)
    posterior = bottleneck(block.posterior, torch.cat([start, features], 1))
    q, p, h = normal(posterior[:, :2], posterior[:, 2:]), normal(prior[:, :2], prior[:, 2:4]), prior[:, 4:]
    torch.manual_seed(1)
    z = q.rsample()
    top = start.flatten(1) + h + z @ block.project.weight.flatten(1).T + block.project.bias
    top = top + bottleneck(block.residual, top)
    decoded = head(F.silu(top)[:, :, None, None]).reshape(6, 1, 28, 28)
    nll, kl = -model.likelihood(decoded).log_prob(x), kl_divergence(q, p)
    torch.manual_seed(1)
    losses = model.losses(x)
    torch.testing.assert_close(losses["kl"], kl)
    torch.testing.assert_close(losses["nll"], nll)
    torch.testing.assert_close(losses["nelbo"], nll + kl)


def test_a_posterior_that_is_the_prior_costs_nothing(clothes: dict[str, Tensor]) -> None:
    model = build()
    for blocks in model.network.decoder.blocks:  # type: ignore[union-attr]
        for block in blocks:
            for layer in (block.prior.last, block.posterior.last):
                torch.nn.init.zeros_(layer.weight)
                torch.nn.init.zeros_(layer.bias)
    assert torch.equal(model.losses(clothes["image"])["kl"], torch.zeros(6))
    found = model.likelihoods(clothes["image"], evaluations=1)
    torch.testing.assert_close(found["bound"], found["importance_weighted"])  # log p(z) - log q(z) is 0, too


def test_losses_of_an_image_do_not_depend_on_the_others(clothes: dict[str, Tensor]) -> None:
    model, x = build(), clothes["image"]
    mean = lambda q: q.mean  # noqa: E731
    together, _ = model.network.descend(6, mean, model.network.ascend(x))  # type: ignore[operator]
    alone, _ = model.network.descend(1, mean, model.network.ascend(x[2:3]))  # type: ignore[operator]
    torch.testing.assert_close(alone, together[2:3], atol=1e-5, rtol=1e-4)


def test_importance_weighting_tightens_the_bound(clothes: dict[str, Tensor]) -> None:
    model, x = build(), clothes["image"]
    generator = torch.Generator().manual_seed(0)
    found = {
        k: [model.likelihoods(x, evaluations=k, generator=generator) for _ in range(128 // k)] for k in (1, 8, 128)
    }
    means = {k: torch.stack([f["importance_weighted"] for f in runs]).mean(0) for k, runs in found.items()}
    bound = found[128][0]["bound"]
    assert (means[128] < means[8]).all()
    assert (means[8] < means[1]).all()
    assert (means[128] < bound).all()
    # the mean of log w over single samples is the bound, of which the KL is known in closed form
    log_weights = torch.stack([f["importance_weighted"] for f in found[1]])
    error = (log_weights.mean(0) - bound) / (log_weights.std(0) * math.sqrt(2 / 128))
    assert error.abs().max() < 4
    torch.manual_seed(0)
    nelbo = torch.stack([model.losses(x)["nelbo"].detach() for _ in range(64)])
    error = (nelbo.mean(0) - bound) / (nelbo.std(0) * math.sqrt(1 / 64 + 1 / 128))
    assert error.abs().max() < 4


def test_importance_weighting_is_the_same_in_chunks(
    clothes: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adding up the weights of 7 samples 2 by 2 gives the mean of all."""
    model, x = build(), clothes["image"]
    drawn: list[tuple[Tensor, Tensor]] = []
    begin = model._begin_draws

    def record(*part: Any) -> Draw:
        draw = begin(*part)
        return lambda n: (drawn.append(draw(n)), drawn[-1])[1]

    monkeypatch.setattr(model, "_begin_draws", record)
    monkeypatch.setattr("lit_generative.vae.bounds.VALUES_AT_ONCE", 13 * 28 * 28)
    found = model.likelihoods(x, evaluations=7)
    assert [len(elbo) for elbo, _ in drawn] == [2, 2, 2, 1]
    elbo, weights = (torch.cat([part[i] for part in drawn]).double() for i in (0, 1))
    torch.testing.assert_close(found["bound"].double(), -elbo.mean(0))
    torch.testing.assert_close(found["importance_weighted"].double(), math.log(7) - weights.logsumexp(0))


def test_a_generator_decides_the_estimates(clothes: dict[str, Tensor]) -> None:
    model, x = build(), clothes["image"]
    first, again, other = (
        model.likelihoods(x, evaluations=3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first["bound"], again["bound"])
    assert not torch.equal(first["bound"], other["bound"])


def test_gray_images_under_bernoulli_have_no_probability(clothes: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    model = LadderVAE(LadderNetwork((1, 28, 28), "7x1", [8], hidden=4), BernoulliLikelihood())
    assert model.likelihoods(clothes["image"], evaluations=2) == {}
    assert "bits_per_dim" not in model.losses(clothes["image"])


def test_the_kl_warms_up_in_training_alone(clothes: dict[str, Tensor]) -> None:
    model, x = build(kl_warm_up=1000), clothes["image"]
    for images_seen, weight in ((0, 0.0), (250, 0.25), (1000, 1.0), (5000, 1.0)):
        model.images_seen = images_seen
        losses = model.train().losses(x)
        torch.testing.assert_close(losses["loss"], losses["nll"] + weight * losses["kl"])
        torch.testing.assert_close(losses["nelbo"], losses["nll"] + losses["kl"])
        losses = model.eval().losses(x)
        torch.testing.assert_close(losses["loss"], losses["nelbo"])


# ---------------------------------------------------------------- the contract


def test_gradients_reach_every_parameter(case: tuple[LadderVAE, Tensor, Tensor | None]) -> None:
    model, x, y = case
    assert_gradients_reach_every_parameter(model, model.losses(x, y)["loss"])


def test_samples_are_images_and_the_generator_decides_them(case: tuple[LadderVAE, Tensor, Tensor | None]) -> None:
    assert_draws_images(*case)


def test_temperature_scales_the_priors(clothes: dict[str, Tensor]) -> None:
    model = build(temperature=0.0)
    first, second = model.sample(2)
    torch.testing.assert_close(first, second)  # all latents are the means
    assert model.sampling["temperature"] == 0
    p = Independent(Normal(torch.full((4000, 2), 3.0), torch.full((4000, 2), 0.5)), 1)
    torch.manual_seed(0)
    z = module.tempered(p, 0.6)
    assert z.mean().item() == pytest.approx(3, abs=0.02)
    assert z.std().item() == pytest.approx(0.3, abs=0.02)


def test_labels_are_given_if_and_only_if_they_are_wanted() -> None:
    with pytest.raises(ValueError, match="the model is unconditional"):
        build().sample(2, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"a model of classes needs labels \(2,\)"):
        build(num_classes=10).sample(2)


def test_a_conditional_model_draws_what_the_labels_say() -> None:
    model = build(num_classes=10)
    assert not torch.equal(*(draw(model, 1, torch.tensor([k])) for k in (0, 1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl_warm_up": -1}, "kl_warm_up=-1: it must be at least 0"),
        ({"temperature": -0.5}, r"temperature=-0.5: it must be at least 0"),
        ({"skip_above": 0.0}, "skip_above=0.0: it must be positive; null skips only what is not finite"),
    ],
)
def test_arguments_without_a_meaning_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_rebuilt_model_draws_the_same_images(case: tuple[LadderVAE, Tensor, Tensor | None]) -> None:
    model, _, y = case
    model.skipped_updates += 3
    again = rebuilt(model)
    assert torch.equal(draw(model, 6, y), draw(again, 6, y))
    assert again.skipped_updates == 3
