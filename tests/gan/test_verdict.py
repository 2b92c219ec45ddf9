import dataclasses
import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from lit_generative.gan.verdict import ADVICE, LEAST_IMAGES, RECENT_CHECKS, TREND_CHECKS, History, Signs, reach_verdict

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HEALTHY = Signs(
    images_seen=100_000,
    checks=40,
    logit_magnitude=12.0,
    real_accuracy=0.75,
    fake_accuracy=0.8,
    held_out_accuracy=0.7,
    logit_gap=2.0,
    generator_gradient=0.5,
    gradient_peak=1.0,
    diversity=0.95,
    diversity_before=0.9,
    evaluated_at=90_000,
    precision=0.8,
    recall=0.6,
    coverage=0.7,
    missing_classes=0,
    num_classes=10,
    frechet_distance=2.0,
    best_frechet_distance=1.8,
    best_at=60_000,
)
SURE = {"real_accuracy": 0.99, "fake_accuracy": 0.98, "held_out_accuracy": 0.97}


def judged(**changes: Any) -> str:
    return reach_verdict(dataclasses.replace(HEALTHY, **changes)).name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "healthy"),
        ({"is_finite": False}, "diverged"),
        ({"logit_magnitude": 2e4}, "diverged"),
        ({"frechet_distance": 6.0, "frechet_before": 5.6}, "diverged"),
        ({"frechet_distance": 6.0, "frechet_before": 4.0}, "healthy"),  # perhaps an outlier
        ({"frechet_distance": 17.0, "frechet_before": 4.0}, "diverged"),  # no outlier
        ({"frechet_distance": 5.0, "frechet_before": 5.0}, "healthy"),
        ({"frechet_distance": 6.0, "frechet_before": 5.6, "best_at": 90_000}, "healthy"),  # soon after the best
        (
            {"frechet_distance": 17.0, "frechet_floor": 1.0, "frechet_spread": 0.5},
            "healthy",
        ),  # as if perfect
        (SURE | {"generator_gradient": 0.005}, "vanishing gradients"),
        (SURE, "healthy"),  # a perfect discriminator that still teaches, as in early non-saturating training
        ({"generator_gradient": 0.005}, "healthy"),  # at an equilibrium the gradient is small as well
        (SURE | {"generator_gradient": 0.005, "has_boundary": False}, "healthy"),  # a critic may be sure
        (SURE | {"generator_gradient": 0.005, "logit_gap_peak": 8.0}, "healthy"),  # the gap closes
        (SURE | {"generator_gradient": 0.005, "logit_gap_peak": 2.2}, "vanishing gradients"),
        ({"diversity": 0.3}, "mode collapse"),
        ({"diversity": 0.3, "diversity_before": 0.2}, "healthy"),  # it learns
        ({"diversity": 0.3, "diversity_before": None}, "healthy"),  # too early to know
        ({"diversity": 0.3, "diversity_rises": True}, "healthy"),  # slowly
        ({"diversity": 0.3, "diversity_peak": 0.4, "images_seen": 50_000}, "healthy"),  # it may be yet to begin
        ({"diversity": 0.3, "diversity_peak": 0.4}, "mode collapse"),
        ({"reach": 0.3, "reach_before": 0.3}, "mode collapse"),  # two modes, far apart
        ({"reach": 0.3, "reach_before": 0.3, "reach_rises": True}, "healthy"),
        ({"recall": 0.01, "coverage": 0.04}, "mode collapse"),
        ({"recall": 0.01, "coverage": 0.04, "precision": 0.06}, "healthy"),  # bad, but not collapsed
        ({"recall": 0.01, "coverage": 0.2}, "healthy"),  # as early in a healthy run
        ({"recall": 0.01, "coverage": None}, "mode collapse"),
        ({"missing_classes": 3}, "mode collapse"),
        ({"missing_classes": 2}, "healthy"),
        ({"missing_classes": 6, "missing_before": 8}, "healthy"),  # it finds more
        ({"recall": 0.01, "coverage": 0.08, "coverage_before": 0.02}, "healthy"),
        ({"real_accuracy": 0.95, "held_out_accuracy": 0.6}, "discriminator overfits"),
        ({"real_accuracy": 0.75, "held_out_accuracy": 0.55}, "healthy"),
    ],
)
def test_each_illness_has_its_signs(changes: dict[str, Any], expected: str) -> None:
    assert judged(**changes) == expected


def test_the_cause_comes_before_what_follows_from_it() -> None:
    ill: dict[str, Any] = SURE | {"diversity": 0.1, "held_out_accuracy": 0.1}
    assert judged(**ill, generator_gradient=0.001, logit_magnitude=1e6) == "diverged"
    assert judged(**ill, generator_gradient=0.001) == "vanishing gradients"
    assert judged(**ill) == "mode collapse"
    assert judged(**ill | {"diversity": 1.0}) == "discriminator overfits"


def test_a_new_model_is_not_called_collapsed() -> None:
    samples: dict[str, Any] = {"recall": 0.0, "coverage": 0.0, "missing_classes": 9}
    for collapsed, since in ((samples, "evaluated_at"), ({"diversity": 0.01}, "images_seen")):
        assert judged(**collapsed, **{since: LEAST_IMAGES}) == "mode collapse"
        assert judged(**collapsed, **{since: LEAST_IMAGES - 1}) == "healthy"
    verdict = reach_verdict(dataclasses.replace(HEALTHY, images_seen=LEAST_IMAGES - 1))
    assert any("not judged before" in reason for reason in verdict.reasons)


def test_few_checks_prove_nothing_but_divergence() -> None:
    ill: dict[str, Any] = SURE | {"generator_gradient": 1e-6, "held_out_accuracy": 0.0}
    assert judged(**ill) == "vanishing gradients"
    assert judged(**ill, checks=RECENT_CHECKS - 1) == "healthy"
    assert judged(**ill, checks=RECENT_CHECKS - 1, is_finite=False) == "diverged"


def test_nothing_measured_is_healthy_and_says_what_is_not_known() -> None:
    verdict = reach_verdict(Signs(images_seen=10**6))
    assert verdict.is_healthy
    assert verdict.reasons == [
        "there were only 0 checks of the discriminator",
        "recall, coverage and missing classes were not measured",
    ]


def test_reasons_hold_the_evidence_and_the_advice_names_a_remedy() -> None:
    verdict = reach_verdict(dataclasses.replace(HEALTHY, diversity=0.12, missing_classes=7))
    assert verdict.reasons == ["the samples' diversity is 0.12 of the real images'", "7 of 10 classes are missing"]
    assert "RelativisticLoss" in verdict.advice
    assert str(verdict).startswith("mode collapse (the samples' diversity is 0.12")
    assert len(ADVICE) == 5
    assert all("\n" not in advice for advice in ADVICE.values())


def test_medians_of_recent_checks_count_and_the_peak_is_one_of_them() -> None:
    history = History()
    for gradient in [1.0, 1.0, 100.0, 1.0, 1.0, 0.2, 0.2, 0.2]:
        history.add_check({"generator_gradient": gradient, "real_accuracy": gradient / 100})
    signs = history.signs(10)
    assert signs.checks == 8
    assert signs.generator_gradient == 0.2
    assert signs.real_accuracy == pytest.approx(0.002)
    assert signs.gradient_peak == 1.0  # not 100


def test_the_checks_before_the_recent_ones_tell_whether_diversity_rises() -> None:
    history = History()
    for i in range(30):
        history.add_check({"diversity": float(i)})
    signs = history.signs(10)
    assert (signs.diversity, signs.diversity_before) == (27.0, 22.0)
    assert len(history.recent) == TREND_CHECKS


def test_one_check_that_is_not_finite_is_enough_until_it_is_over() -> None:
    history = History()
    for value in (1.0, math.nan):
        history.add_check({"logit_gap": value})
    assert reach_verdict(history.signs(10)).name == "diverged"
    assert history.signs(10).logit_gap == 1.0
    history.add_check({"logit_gap": 3.0})
    assert history.signs(10).is_finite
    assert history.signs(10).logit_gap == 2.0


def test_the_course_of_the_distance_is_kept_under_either_name() -> None:
    history = History()
    classes = {"histogram": {"a": 3, "b": 0}, "missing": ["b"]}
    history.add_evaluation(100, {"fid": 9.0, "recall": 0.4, "missing_classes": 1.0}, classes)
    history.add_evaluation(200, {"fid": 3.0, "recall": 0.5, "missing_classes": 1.0}, classes)
    history.add_evaluation(300, {"fid": math.nan, "recall": 0.5, "missing_classes": 1.0}, classes)
    history.add_evaluation(400, {"frechet_distance": 11.0, "recall": 0.1, "missing_classes": 1.0}, classes)
    history.add_evaluation(500, {"frechet_distance": 12.0, "recall": 0.1, "missing_classes": 1.0}, classes, 0.2, 0.01)
    signs = history.signs(500)
    assert (signs.frechet_distance, signs.best_frechet_distance, signs.best_at) == (12.0, 3.0, 200)
    assert (signs.frechet_before, signs.frechet_floor, signs.frechet_spread) == (11.0, 0.2, 0.01)
    assert (signs.missing_before, signs.fewest_missing, signs.best_coverage) == (1.0, 1.0, None)
    assert (signs.recall, signs.missing_classes, signs.num_classes, signs.precision) == (0.1, 1.0, 2, None)
    assert reach_verdict(signs).name == "diverged"
    assert history.signs(400, with_evaluation=False) == Signs(images_seen=400)


def test_a_history_survives_being_written_as_plain_data() -> None:
    history = History()
    history.add_check({"generator_gradient": 2.0})
    history.add_evaluation(100, {"frechet_distance": 9.0}, {})
    again = History(**json.loads(json.dumps(dataclasses.asdict(history))))
    assert again == history
    assert again.signs(5) == history.signs(5)


@pytest.mark.parametrize("evaluations", [4, 12])
def test_scripted_courses_are_judged_as_they_were_made(evaluations: int) -> None:
    """The table of docs/gan.md, from fewer courses."""
    spec = importlib.util.spec_from_file_location("verdicts", BENCHMARKS / "verdicts.py")
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    sys.modules["verdicts"] = benchmark  # where dataclasses look for their module
    spec.loader.exec_module(benchmark)
    for name, _, missed, alarmed, longest in benchmark.scripted(evaluations, 8):
        assert missed <= 0.25, name
        assert alarmed <= (0.5 if name == "slow starter" else 0.13), name
        assert longest < 10, name
