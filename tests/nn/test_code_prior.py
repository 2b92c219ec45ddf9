"""The causal transformer over codes: a distribution, one code after the other, and drawn from exactly."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_generative.description import describe, rebuild
from lit_generative.nn import CodeTransformer
from lit_generative.nn.attention import attend


def build(num_codes: int = 5, **options: Any) -> CodeTransformer:
    """Build a small network without the zeros that it starts with, and with logits far from equal."""
    torch.manual_seed(0)
    prior = CodeTransformer(num_codes, **({"dim": 16, "depth": 2, "heads": 2} | options)).eval()
    for parameter in prior.parameters():
        nn.init.normal_(parameter, std=0.3)
    return prior


def grids(n: int = 3, num_codes: int = 5, size: tuple[int, int] = (3, 4)) -> Tensor:
    return torch.randint(num_codes, (n, *size), generator=torch.Generator().manual_seed(1))


def log_prob(prior: CodeTransformer, codes: Tensor, y: Tensor | None = None) -> Tensor:
    return (
        -F.cross_entropy(prior(codes, y).flatten(0, 2), codes.flatten(), reduction="none").view(len(codes), -1).sum(1)
    )


def test_probabilities_of_all_grids_sum_to_1() -> None:
    prior = build(3, num_classes=2)
    codes = torch.tensor(list(product(range(3), repeat=4))).view(81, 2, 2)
    for label in range(2):
        p = log_prob(prior, codes, torch.full((81,), label)).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-5)
        assert p.max() > 2 * p.min()


def test_a_code_depends_on_all_those_before_it_and_on_no_other() -> None:
    prior, codes = build(), grids(1)
    logits = prior(codes).flatten(1, 2)
    for i in range(12):
        changed = codes.flatten(1).clone()
        changed[:, i] = (changed[:, i] + 1) % 5
        moved = (prior(changed.view_as(codes)).flatten(1, 2) - logits).abs().amax((0, 2))
        assert (moved[: i + 1] == 0).all()
        assert (moved[i + 1 :] > 1e-4).all()


def test_the_fused_kernel_sees_as_far(monkeypatch: pytest.MonkeyPatch) -> None:
    prior, codes = build(), grids()
    expected = prior(codes)

    monkeypatch.setattr("lit_generative.nn.code_prior.attend", F.scaled_dot_product_attention)
    torch.testing.assert_close(prior(codes), expected)
    monkeypatch.setattr("lit_generative.nn.code_prior.attend", lambda q, k, v, is_causal: attend(q, k, v))
    assert (prior(codes) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("num_classes", [None, 3])
def test_sampling_step_by_step_has_the_logits_of_the_whole(
    num_classes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior = build(num_classes=num_classes)
    y = None if num_classes is None else torch.arange(6) % 3
    asked = []

    def multinomial(p: Tensor, n: int) -> Tensor:
        asked.append(p)
        least = torch.tensor([[0.1], [0.3], [0.5], [0.7], [0.8], [0.9]])  # in place of noise
        return p.cumsum(1).gt(least).int().argmax(1, keepdim=True)

    monkeypatch.setattr(torch, "multinomial", multinomial)
    codes = prior.sample(6, (3, 4), y, temperature=0.7)
    expected = (prior(codes, y) / 0.7).softmax(-1).flatten(1, 2)
    torch.testing.assert_close(torch.stack(asked, dim=1), expected, atol=1e-5, rtol=1e-4)
    assert len(codes.unique()) > 2


def test_samples_are_as_frequent_as_the_network_says() -> None:
    prior = build(2)
    torch.manual_seed(3)
    n = 20_000
    codes = prior.sample(n, (1, 3)).flatten(1)
    for bits in product(range(2), repeat=3):
        p = log_prob(prior, torch.tensor(bits).view(1, 1, 3)).exp().item()
        share = (codes == torch.tensor(bits)).all(1).float().mean().item()
        assert abs(share - p) < 5 * (p * (1 - p) / n) ** 0.5


def test_a_low_temperature_draws_the_likeliest_code() -> None:
    prior = build()
    codes = prior.sample(4, (2, 3), temperature=1e-3)
    assert torch.equal(prior(codes).argmax(-1), codes)


def test_every_place_is_another() -> None:
    prior = build()
    places = prior._places((3, 4), None, 1)[0]
    assert torch.cdist(places, places).fill_diagonal_(1).min() > 0.1
    same = torch.zeros(1, 3, 4, dtype=torch.long)
    moved = prior(same.view(1, 4, 3)).flatten(0, 2) - prior(same).flatten(0, 2)
    assert (moved[3:].abs().amax(1) > 1e-3).all()  # after the first row of three


def test_all_codes_are_equally_likely_at_first() -> None:
    prior = CodeTransformer(7, dim=16, depth=1, heads=2)
    torch.testing.assert_close(prior(grids(num_codes=7)).softmax(-1), torch.full((3, 3, 4, 7), 1 / 7))


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_every_parameter_has_a_finite_gradient(bf16: bool) -> None:
    prior = build(num_classes=2).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        logits = prior(grids(), torch.tensor([0, 1, 1]))
    assert logits.dtype == torch.float32
    F.cross_entropy(logits.flatten(0, 2), grids().flatten()).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_it_learns_grids_by_heart() -> None:
    torch.manual_seed(0)
    prior, codes = CodeTransformer(5, 32, 2, 2), grids()
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(100):
        loss = -log_prob(prior, codes).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert log_prob(prior, codes).exp().min() > 0.25  # a third each is the most that three grids can have
    drawn = prior.sample(200, (3, 4)).flatten(1)
    is_one_of_them = (drawn[:, None] == codes.flatten(1)).all(2)
    assert is_one_of_them.any(1).float().mean() > 0.9
    assert is_one_of_them.any(0).all()


def test_dropout_is_for_training_alone() -> None:
    prior, codes = build(dropout=0.5), grids()
    assert torch.equal(prior(codes), prior(codes))
    prior.train()
    assert not torch.equal(prior(codes), prior(codes))


def test_it_is_rebuilt_from_its_description() -> None:
    prior = build(num_classes=3, dropout=0.2)
    again = rebuild(describe(prior)).eval()
    again.load_state_dict(prior.state_dict())
    y = torch.tensor([0, 1, 2])
    assert torch.equal(prior(grids(), y), again(grids(), y))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 0}, "num_codes=0: it must be at least 1"),
        ({"depth": 0}, "depth=0: it must be at least 1"),
        ({"heads": 0}, "heads=0: it must be at least 1"),
        ({"dim": 18}, "dim=18: take a multiple of 4 and of heads=2, for instance 64"),
        ({"dim": 16, "heads": 3}, "dim=16: take a multiple of 4 and of heads=3, for instance 96"),
        ({"dropout": 1.0}, r"dropout=1\.0: it must be in \[0, 1\)"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_a_class_is_needed_where_there_are_classes() -> None:
    with pytest.raises(ValueError, match="needs a label per image"):
        build(num_classes=2)(grids())
