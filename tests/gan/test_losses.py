import math

import pytest
import torch
from torch import Tensor

from lit_generative.description import describe, rebuild
from lit_generative.gan.losses import (
    AdversarialLoss,
    HingeLoss,
    LeastSquaresLoss,
    MinimaxLoss,
    NonSaturatingLoss,
    RelativisticLoss,
    WassersteinLoss,
)

LOSSES = [
    MinimaxLoss(),
    NonSaturatingLoss(),
    HingeLoss(),
    LeastSquaresLoss(),
    LeastSquaresLoss(-1, 1, 0),
    WassersteinLoss(),
    RelativisticLoss(),
]
REAL = torch.tensor([0.3, -2.0, 0.0, 1.7])
FAKE = torch.tensor([-0.4, 1.1, 0.0, 0.9])


def gradients(values: Tensor, *logits: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(values.sum(), logits, materialize_grads=True)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_loss_pushes_logits_the_right_way(loss: AdversarialLoss, dtype: torch.dtype) -> None:
    at = 0.0 if loss.boundary is None else loss.boundary
    real, fake = (torch.full((3,), logit, dtype=dtype, requires_grad=True) for logit in (at, at - 0.25))
    generator, discriminator = loss.generator(real, fake), loss.discriminator(real, fake)
    for values in (generator, discriminator):
        assert values.shape == (3,)
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
    of_real, of_fake = gradients(generator, real, fake)
    assert (of_fake < 0).all(), "a step downhill must raise fake logits"
    assert (of_real != 0).all() == loss.sees_real
    of_real, of_fake = gradients(discriminator, real, fake)
    assert (of_real < 0).all(), "a step downhill must raise real logits"
    assert (of_fake > 0).all(), "a step downhill must lower fake logits"


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(("real", "fake"), [(1e4, -1e4), (-1e4, 1e4), (1e4, 1e4), (-1e4, -1e4)])
def test_every_loss_is_finite_at_extreme_logits(loss: AdversarialLoss, real: float, fake: float) -> None:
    logits = torch.tensor([real], requires_grad=True), torch.tensor([fake], requires_grad=True)
    for values in (loss.generator(*logits), loss.discriminator(*logits)):
        assert torch.isfinite(values).all()
        assert all(torch.isfinite(gradient).all() for gradient in gradients(values, *logits))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_every_loss_takes_pairs_one_by_one(loss: AdversarialLoss) -> None:
    for player in (loss.generator, loss.discriminator):
        alone = torch.cat([player(REAL[i : i + 1], FAKE[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(player(REAL, FAKE), alone)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_every_loss_is_rebuilt_from_its_description(loss: AdversarialLoss) -> None:
    rebuilt = rebuild(describe(loss))
    assert type(rebuilt) is type(loss)
    assert rebuilt.boundary == loss.boundary
    assert torch.equal(rebuilt.generator(REAL, FAKE), loss.generator(REAL, FAKE))
    assert torch.equal(rebuilt.discriminator(REAL, FAKE), loss.discriminator(REAL, FAKE))


@pytest.mark.parametrize(
    ("loss", "generator", "discriminator"),
    [
        (MinimaxLoss(), -math.log(2), 2 * math.log(2)),
        (NonSaturatingLoss(), math.log(2), 2 * math.log(2)),
        (HingeLoss(), 0.0, 2.0),
        (LeastSquaresLoss(), 0.5, 0.5),
        (LeastSquaresLoss(-1, 1, 0), 0.0, 1.0),
        (WassersteinLoss(), 0.0, 0.0),
        (RelativisticLoss(), math.log(2), math.log(2)),
    ],
)
def test_values_at_logit_zero(loss: AdversarialLoss, generator: float, discriminator: float) -> None:
    zero = torch.zeros(1)
    assert loss.generator(zero, zero).item() == pytest.approx(generator)
    assert loss.discriminator(zero, zero).item() == pytest.approx(discriminator)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (MinimaxLoss(), -torch.sigmoid(FAKE)),
        (NonSaturatingLoss(), torch.sigmoid(FAKE) - 1),
        (HingeLoss(), -torch.ones(4)),
        (LeastSquaresLoss(0, 1, 2), FAKE - 2),
        (WassersteinLoss(), -torch.ones(4)),
        (RelativisticLoss(), -torch.sigmoid(REAL - FAKE)),
    ],
)
def test_the_gradient_that_reaches_the_generator(loss: AdversarialLoss, expected: Tensor) -> None:
    fake = FAKE.clone().requires_grad_()
    torch.testing.assert_close(gradients(loss.generator(REAL, fake), fake)[0], expected)


def test_minimax_vanishes_where_the_discriminator_is_sure_and_non_saturating_does_not() -> None:
    fake = torch.tensor([-20.0], requires_grad=True)
    assert gradients(MinimaxLoss().generator(fake, fake), fake)[0].abs().item() < 1e-8
    assert gradients(NonSaturatingLoss().generator(fake, fake), fake)[0].abs().item() == pytest.approx(1)


def test_minimax_is_a_zero_sum_game() -> None:
    # what remains is the term of the real images, on which the generator has no influence
    total = MinimaxLoss().generator(REAL, FAKE) + MinimaxLoss().discriminator(REAL, FAKE)
    torch.testing.assert_close(total, -torch.log(torch.sigmoid(REAL)))


def test_the_optimal_discriminator_measures_the_jensen_shannon_divergence() -> None:
    # Goodfellow et al. 2014, proposition 1 and theorem 1: D* = p / (p + q) has the value 2 JSD(p, q) - log 4
    p, q = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.4, 0.1, 0.1]]).double()
    logits = (p / q).log().requires_grad_()
    real, fake = torch.meshgrid(logits, logits, indexing="ij")
    value = -(p[:, None] * q * MinimaxLoss().discriminator(real, fake)).sum()
    m = (p + q) / 2
    twice_jsd = (p * (p / m).log()).sum() + (q * (q / m).log()).sum()
    assert value.item() == pytest.approx(twice_jsd.item() - math.log(4), abs=1e-6)
    torch.testing.assert_close(gradients(value, logits)[0], torch.zeros_like(logits), atol=1e-6, rtol=0)


def test_least_squares_is_undecided_half_way_between_its_targets() -> None:
    for loss in (LeastSquaresLoss(), LeastSquaresLoss(-1, 1, 0), LeastSquaresLoss(2, 5, 5)):
        boundary = torch.tensor([loss.boundary], requires_grad=True)
        (gradient,) = gradients(loss.discriminator(boundary, boundary), boundary)
        assert gradient.item() == pytest.approx(0)


def test_hinge_is_satisfied_beyond_its_margins() -> None:
    real, fake = torch.tensor([1.0, 5.0, 0.5]), torch.tensor([-1.0, -5.0, -0.5])
    assert HingeLoss().discriminator(real, fake).tolist() == [0, 0, 1]


@pytest.mark.parametrize("loss", [WassersteinLoss(), RelativisticLoss()])
@pytest.mark.parametrize("shift", [-7.0, 0.5, 100.0])
def test_losses_without_a_boundary_ignore_a_common_shift_of_logits(loss: AdversarialLoss, shift: float) -> None:
    assert loss.boundary is None
    expected, shifted = loss.discriminator(REAL, FAKE), loss.discriminator(REAL + shift, FAKE + shift)
    torch.testing.assert_close(shifted, expected, atol=1e-4, rtol=0)


def test_relativistic_players_swap_roles() -> None:
    torch.testing.assert_close(RelativisticLoss().generator(REAL, FAKE), RelativisticLoss().discriminator(FAKE, REAL))
    p = torch.sigmoid(REAL - FAKE)  # the probability that the real one of a pair looks more real
    torch.testing.assert_close(RelativisticLoss().discriminator(REAL, FAKE), -p.log())
    torch.testing.assert_close(RelativisticLoss().generator(REAL, FAKE), -(1 - p).log())


@pytest.mark.parametrize("targets", [(1, 0, 1), (0, 1, 0), (0, 0, 1)])
def test_least_squares_refuses_targets_in_the_wrong_order(targets: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=rf"a={targets[0]}, b={targets[1]}.*must be below b and c"):
        LeastSquaresLoss(*targets)
