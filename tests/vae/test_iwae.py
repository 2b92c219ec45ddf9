"""The importance weighted autoencoder: its bound, and the two gradients of it."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from vae_contract import draw, rebuilt

from lit_generative import ImageDataModule
from lit_generative.nn import MLPDecoder, MLPEncoder
from lit_generative.vae import IWAE, GaussianLikelihood

SHAPE = (1, 28, 28)


@pytest.fixture(scope="module")
def x() -> Tensor:
    return next(iter(ImageDataModule(subset=50).loader("test", batch_size=4)))["image"]


def build(is_doubly_reparameterised: bool = True, num_samples: int = 8, num_classes: int | None = None) -> IWAE:
    torch.manual_seed(0)
    return IWAE(
        MLPEncoder(SHAPE, 3, hidden=(16,), num_classes=num_classes),
        MLPDecoder(SHAPE, 3, hidden=(16,), num_classes=num_classes),
        GaussianLikelihood(1.0),
        3,
        num_samples,
        is_doubly_reparameterised,
        num_classes=num_classes,
    )


def gradients(model: IWAE, network: nn.Module, x: Tensor, seed: int) -> Tensor:
    """Return the gradient of the loss with respect to a network's weights, flat."""
    torch.manual_seed(seed)
    loss = model.losses(x)["loss"].mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])


def test_the_loss_is_the_bound_of_equation_8(x: Tensor) -> None:
    model = build()
    torch.manual_seed(1)
    losses = model.losses(x)
    torch.manual_seed(1)
    with torch.no_grad():
        q = model.encode(x)
        z = q.rsample(torch.Size([8]))
        nll = torch.stack([-model.decode(z_k).log_prob(x) for z_k in z])
        kl = q.log_prob(z) - model.prior().log_prob(z)
        expected = {"loss": math.log(8) - (-nll - kl).logsumexp(0), "nelbo": (nll + kl).mean(0)}
    for name, value in (expected | {"nll": nll.mean(0), "kl": kl.mean(0)}).items():
        torch.testing.assert_close(losses[name], value, rtol=1e-5, atol=1e-3)


def test_both_gradients_have_the_same_loss_and_the_same_gradient_of_the_decoder(x: Tensor) -> None:
    plain, doubly = build(is_doubly_reparameterised=False), build()
    losses = []
    for model in (plain, doubly):
        torch.manual_seed(3)
        losses.append(model.losses(x)["loss"])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(
        gradients(plain, plain.decoder, x, 3), gradients(doubly, doubly.decoder, x, 3), atol=1e-3, rtol=1e-3
    )


def test_the_doubly_reparameterised_gradient_has_the_mean_of_the_plain_one_and_less_variance(x: Tensor) -> None:
    plain, doubly = (
        torch.stack([gradients(model, model.encoder.head, x[:1], seed) for seed in range(500)])
        for model in (build(is_doubly_reparameterised=False), build())
    )
    error = (plain.mean(0) - doubly.mean(0)) / ((plain.var(0) + doubly.var(0)) / len(plain)).sqrt().clamp(min=1e-12)
    assert error.square().mean().sqrt() < 1.7  # in standard errors; components are correlated
    assert (doubly.mean(0).norm() - plain.mean(0).norm()).abs() < 0.5 * plain.mean(0).norm()
    assert doubly.var(0).sum() < 0.8 * plain.var(0).sum()


class ShiftedPosterior(IWAE):
    """Its posterior is the prior, moved by a parameter."""

    def __init__(self, is_doubly_reparameterised: bool) -> None:
        super().__init__(nn.Identity(), nn.Identity(), GaussianLikelihood(), 1, 3, is_doubly_reparameterised)
        self.shift = nn.Parameter(torch.tensor([0.7]))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Independent(Normal(self.shift.expand(len(x), 1), torch.ones(len(x), 1)), 1)

    def log_likelihood(self, x: Tensor, z: Tensor, y: Tensor | None = None, *, is_mass: bool = False) -> Tensor:
        return torch.zeros(z.shape[:2])  # p(x|z) is a constant, so that the posterior is the prior


def test_the_doubly_reparameterised_gradient_is_that_of_equation_8() -> None:
    """With p(x|z) = 1, log w = -shift (eps + shift / 2) and d log w / d z = -shift; d z / d shift = 1."""
    model = ShiftedPosterior(True)
    torch.manual_seed(0)
    loss = model.losses(torch.zeros(1, 1, 1, 1))["loss"].sum()
    (found,) = torch.autograd.grad(loss, model.shift)
    torch.manual_seed(0)
    z = model.encode(torch.zeros(1, 1, 1, 1)).sample(torch.Size([3])).flatten()
    shift = model.shift.detach()
    v = (-shift * (z - shift) - shift**2 / 2).softmax(0)
    torch.testing.assert_close(found, (v.square().sum() * shift).view(1))


def test_the_gradient_vanishes_at_the_true_posterior_only_if_doubly_reparameterised() -> None:
    slopes = []
    for is_doubly_reparameterised in (True, False):
        model = ShiftedPosterior(is_doubly_reparameterised)
        model.shift.data.zero_()
        torch.manual_seed(0)
        slopes += torch.autograd.grad(model.losses(torch.zeros(5, 1, 1, 1))["loss"].sum(), model.shift)
    assert slopes[0].abs() < 1e-6
    assert slopes[1].abs() > 1e-2


def test_without_gradients_it_is_the_same_number(x: Tensor) -> None:
    model = build()
    losses = []
    for is_enabled in (True, False):
        torch.manual_seed(0)
        with torch.set_grad_enabled(is_enabled):
            losses.append(model.losses(x)["loss"].detach())
    assert torch.equal(*losses)


def test_labels_and_checkpoints_work_as_with_every_model(x: Tensor) -> None:
    model = build(num_classes=10, num_samples=3)
    y = torch.tensor([1, 2, 3, 4])
    model.losses(x, y)["loss"].mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    again = rebuilt(model)
    assert again.num_samples == 3
    assert torch.equal(draw(model, 4, y), draw(again, 4, y))


def test_there_must_be_a_latent() -> None:
    with pytest.raises(ValueError, match="num_samples=0: it must be at least 1"):
        build(num_samples=0)
