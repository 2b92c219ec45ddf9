import math

import pytest
import torch
from torch import Tensor, nn

from lit_generative.description import describe, rebuild
from lit_generative.gan.penalties import (
    R1,
    R2,
    Discriminate,
    GradientPenalty,
    LabelMatchingPenalty,
    Penalty,
    ZeroCentredPenalty,
    between,
)

PENALTIES = [R1(3.0), R2(3.0), GradientPenalty(), ZeroCentredPenalty(3.0)]
SHAPE = (5, 2, 4, 4)
named = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: type(penalty).__name__)


def images() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(SHAPE) * 2 - 1, torch.rand(SHAPE) * 2 - 1


def network() -> nn.Module:
    """A discriminator with a curvature, so that double backward has something to find."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, stride=2, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(),
        nn.Flatten(), nn.Linear(32, 1), nn.Flatten(0),
    )  # fmt: skip


def unconditional(d: nn.Module) -> Discriminate:
    return lambda x, y: d(x)


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (R1(3.0), 3 / 2 * 0.5**2 * 32),
        (R2(3.0), 3 / 2 * 0.5**2 * 32),
        (GradientPenalty(), 10 * (0.5 * 32**0.5 - 1) ** 2),
        (GradientPenalty(2.0), 2 * (0.5 * 32**0.5 - 1) ** 2),
        (ZeroCentredPenalty(3.0), 3 * 0.5**2 * 32),
    ],
)
def test_a_linear_discriminator_has_the_same_penalty_everywhere(penalty: Penalty, expected: float) -> None:
    weights = torch.full(SHAPE[1:], 0.5)  # w, with ||w||^2 = 0.5^2 * 32
    values = penalty(lambda x, y: (x * weights).sum((1, 2, 3)), *images())
    torch.testing.assert_close(values, torch.full((5,), expected))


def test_a_quadratic_discriminator_shows_where_gradients_are_taken() -> None:
    real, fake = images()

    def discriminate(x: Tensor, y: Tensor | None) -> Tensor:  # its gradient at x is 3 x
        return 1.5 * x.square().sum((1, 2, 3))

    def squares(x: Tensor) -> Tensor:
        return (3 * x).square().sum((1, 2, 3))

    torch.testing.assert_close(R1(2.0)(discriminate, real, fake), squares(real))
    torch.testing.assert_close(R2(2.0)(discriminate, real, fake), squares(fake))
    torch.manual_seed(7)
    middle = between(real, fake)
    torch.manual_seed(7)
    torch.testing.assert_close(ZeroCentredPenalty(2.0)(discriminate, real, fake), 2 * squares(middle))
    torch.manual_seed(7)
    torch.testing.assert_close(GradientPenalty(2.0)(discriminate, real, fake), 2 * (squares(middle).sqrt() - 1) ** 2)


def test_each_point_between_has_its_own_place_on_its_line() -> None:
    real, fake = images()
    epsilon = (between(real, fake) - fake) / (real - fake)  # the same for all pixels of an image
    assert ((epsilon > 0) & (epsilon < 1)).all()
    assert epsilon.flatten(1).std(1).max() < 1e-4
    assert len(epsilon[:, 0, 0, 0].unique()) == 5


@named
def test_gradients_of_the_parameters_against_finite_differences(penalty: Penalty) -> None:
    real, fake = (x.double() for x in images())
    d = network().double()

    def value() -> Tensor:
        torch.manual_seed(3)
        return penalty(unconditional(d), real, fake).mean()

    parameters = list(d.parameters())
    analytic = torch.autograd.grad(value(), parameters, materialize_grads=True)
    for parameter, gradient in zip(parameters, analytic, strict=True):
        direction, step = torch.randn_like(parameter), 1e-3
        with torch.no_grad():
            parameter.add_(step * direction)
        above = value().item()
        with torch.no_grad():
            parameter.sub_(2 * step * direction)
        below = value().item()
        with torch.no_grad():
            parameter.add_(step * direction)
        assert (gradient * direction).sum().item() == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-7)


@named
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_double_backward_under_autocast(penalty: Penalty, dtype: torch.dtype) -> None:
    real, fake = images()
    values, gradients = [], []
    for enabled in (False, True):
        d = network()
        torch.manual_seed(3)
        with torch.autocast("cpu", dtype, enabled=enabled):
            value = penalty(unconditional(d), real, fake)
        value.mean().backward()
        assert value.dtype == torch.float32
        values.append(value)
        gradients.append(torch.cat([p.grad.flatten() for p in d.parameters() if p.grad is not None]))
    torch.testing.assert_close(values[1], values[0], rtol=0.03, atol=0.01)
    assert torch.isfinite(gradients[1]).all()
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.999


def test_squares_are_summed_in_single_precision() -> None:
    # the square of 300 overflows in float16
    def discriminate(x: Tensor, y: Tensor | None) -> Tensor:
        return (300 * x.half()).sum((1, 2, 3), dtype=torch.float32)

    torch.testing.assert_close(R1(2.0)(discriminate, *images()), torch.full((5,), 300.0**2 * 32))


@named
def test_a_flat_discriminator_has_finite_gradients(penalty: Penalty) -> None:
    weight = torch.zeros(32, requires_grad=True)
    penalty(lambda x, y: x.flatten(1) @ weight, *images()).sum().backward()
    assert torch.isfinite(weight.grad).all()  # type: ignore[arg-type]


@named
def test_nothing_flows_back_to_the_images(penalty: Penalty) -> None:
    real, fake = images()
    real.requires_grad_()
    weight = torch.ones(1, requires_grad=True)  # a generator's
    d = network()
    penalty(unconditional(d), real, fake * weight).sum().backward()
    assert weight.grad is None
    assert real.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in d.named_parameters() if "weight" in name)


@named
def test_labels_reach_the_discriminator(penalty: Penalty) -> None:
    y = torch.tensor([1, 0, 2, 0, 1])
    slopes = torch.tensor([0.0, 1.0, 2.0])
    values = penalty(lambda x, y: slopes[y] * x.sum((1, 2, 3)), *images(), y)
    expected = penalty.weight * penalty.measure(slopes[y, None].expand(-1, 32))
    torch.testing.assert_close(values, expected)


@named
@pytest.mark.parametrize("every", [1, 4])
def test_a_rare_penalty_has_the_mean_of_a_constant_one(penalty: Penalty, every: int) -> None:
    def discriminate(x: Tensor, y: Tensor | None) -> Tensor:
        return x.sum((1, 2, 3))

    rare = type(penalty)(penalty.weight, every=every)
    due = [step for step in range(12) if rare.is_due(step)]
    assert due == list(range(0, 12, every))
    total = sum(rare(discriminate, *images()).mean().item() for _ in due)
    assert total / 12 == pytest.approx(penalty(discriminate, *images()).mean().item())


@named
def test_every_penalty_is_rebuilt_from_its_description(penalty: Penalty) -> None:
    rebuilt = rebuild(describe(type(penalty)(0.5, every=8)))
    assert (type(rebuilt), rebuilt.weight, rebuilt.every) == (type(penalty), 0.5, 8)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_a_weight_that_is_not_positive_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"weight={weight}: .*must be positive"):
        R1(weight)


@pytest.mark.parametrize("every", [0, -8])
def test_an_interval_below_one_is_refused(every: int) -> None:
    with pytest.raises(ValueError, match=f"every={every}: .*at least 1"):
        GradientPenalty(every=every)


def test_label_matching_compares_a_real_image_under_its_label_and_under_another() -> None:
    real, fake = images()
    y = torch.tensor([0, 1, 1, 2, 2])  # the neighbours' labels are 2, 0, 1, 1, 2
    scores = torch.randn(5, 3, generator=torch.Generator().manual_seed(2)).requires_grad_()

    def discriminate(x: Tensor, y: Tensor | None) -> Tensor:
        assert torch.equal(x, real)
        return scores[torch.arange(5), y]

    values = LabelMatchingPenalty(2.0, every=3)(discriminate, real, fake, y)
    wrong = {0: (2, 0), 1: (0, 1), 3: (1, 2)}  # image: (the neighbour's label, its own)
    known = scores.tolist()
    expected = [0.0] * 5
    for i, (other, own) in wrong.items():
        expected[i] = 6 * math.log1p(math.exp(known[i][other] - known[i][own]))
    assert values.tolist() == pytest.approx(expected)
    values.sum().backward()
    at_own, others = scores.grad[torch.arange(5), y], scores.grad[torch.arange(5), y.roll(1)]
    assert (at_own[[0, 1, 3]] < 0).all()
    assert (others[[0, 1, 3]] > 0).all()
    assert not scores.grad[[2, 4]].any()


def test_label_matching_needs_labels() -> None:
    with pytest.raises(ValueError, match="LabelMatchingPenalty needs labels: set num_classes"):
        LabelMatchingPenalty(1.0)(unconditional(network()), *images())
