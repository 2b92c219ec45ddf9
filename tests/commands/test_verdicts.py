"""Recipes that are trained to fail get the verdict that they were made for, and one that is well gets none of them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from running import Outcome

SHORT = ["--evaluation.num_samples", "500", "--evaluation.num_real", "500", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def last_record(lit_generative: Callable[..., Outcome]) -> Callable[..., dict[str, Any]]:
    """Train a recipe, and return what was written down last."""

    def train(recipe: str, *options: str) -> dict[str, Any]:
        outcome = lit_generative("fit", "--config", recipe, *SHORT, *options)
        assert outcome.status == 0, outcome.err
        record = json.loads((outcome.folder / "evaluation.json").read_text())[-1]
        printed = " ".join(outcome.out.split())
        assert f"Health: {record['health']['verdict']} (" in printed
        assert record["health"]["advice"] in printed
        return record

    return train


def test_under_the_minimax_loss_gradients_vanish(last_record: Callable[..., dict[str, Any]]) -> None:
    health = last_record("gan/saturating")["health"]
    assert health["verdict"] == "vanishing gradients"
    assert health["signs"]["generator_gradient"] < 0.03 * health["signs"]["gradient_peak"]


def test_a_generator_that_outruns_its_discriminator_collapses(last_record: Callable[..., dict[str, Any]]) -> None:
    record = last_record("gan/collapse", "--trainer.max_epochs", "8")
    assert record["health"]["verdict"] == "mode collapse"
    assert record["metrics"]["recall"] < 0.1
    assert record["metrics"]["missing_classes"] >= 3


def test_the_ring_is_covered_by_the_relativistic_game_with_penalties(
    last_record: Callable[..., dict[str, Any]],
) -> None:
    record = last_record(
        "gan/ring", "--trainer.max_steps", "3000", "--evaluation.num_samples", "2000", "--evaluation.num_real", "2000"
    )
    assert record["metrics"]["modes"] == 8
    assert record["health"]["verdict"] == "healthy"


def test_the_ring_is_not_covered_by_the_minimax_game(last_record: Callable[..., dict[str, Any]]) -> None:
    record = last_record("gan/ring-minimax", "--trainer.max_steps", "2000")
    assert record["metrics"]["modes"] < 8
    assert record["health"]["verdict"] in ("vanishing gradients", "mode collapse")
