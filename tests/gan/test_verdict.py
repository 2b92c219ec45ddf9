import dataclasses
import json
import math
from typing import Any

import pytest

from lit_generative.gan.verdict import ADVICE, LEAST_IMAGES, RECENT_CHECKS, History, Signs, reach_verdict

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
        ({"frechet_distance": 6.0}, "diverged"),
        ({"frechet_distance": 5.0}, "healthy"),
        ({"frechet_distance": 6.0, "best_at": 90_000}, "healthy"),  # one bad evaluation after the best
        (SURE | {"generator_gradient": 0.005}, "vanishing gradients"),
        (SURE, "healthy"),  # a perfect discriminator that still teaches, as in early non-saturating training
        ({"generator_gradient": 0.005}, "healthy"),  # at an equilibrium the gradient is small as well
        ({"diversity": 0.3}, "mode collapse"),
        ({"diversity": 0.3, "diversity_before": 0.2}, "healthy"),  # it learns
        ({"diversity": 0.3, "diversity_before": None}, "healthy"),  # too early to know
        ({"recall": 0.01, "coverage": 0.04}, "mode collapse"),
        ({"recall": 0.01, "coverage": 0.04, "precision": 0.06}, "healthy"),  # bad, but not collapsed
        ({"recall": 0.01, "coverage": 0.2}, "healthy"),  # as early in a healthy run
        ({"recall": 0.01, "coverage": None}, "mode collapse"),
        ({"missing_classes": 3}, "mode collapse"),
        ({"missing_classes": 2}, "healthy"),
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
    assert len(history.recent) == 2 * RECENT_CHECKS


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
    history.add_evaluation(400, {"frechet_distance": 12.0, "recall": 0.1, "missing_classes": 1.0}, classes)
    signs = history.signs(400)
    assert (signs.frechet_distance, signs.best_frechet_distance, signs.best_at) == (12.0, 3.0, 200)
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
