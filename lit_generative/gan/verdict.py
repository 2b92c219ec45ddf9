"""Is this collapse? From the signs of an adversarial training to a verdict with its evidence and its advice.

Trends count before levels, and differences only beyond what chance makes of a few samples. How often the rules are
wrong is measured by ``benchmarks/verdicts.py``. Plain numbers in, plain data out: no model, no trainer, no tensors.
"""

import dataclasses
import math
from collections.abc import Callable
from statistics import median
from typing import Any

__all__ = ["History", "Signs", "Verdict", "reach_verdict"]

# Checks whose median counts, and the fewest that mean anything: a single batch of 64 puts an accuracy of 0.9 anywhere
# from 0.83 to 0.97, and one strange batch may do anything
RECENT_CHECKS = 5
# Checks in which a trend is looked for
TREND_CHECKS = 20
# ... and how far Mann and Kendall's statistic of them is above chance: neighbours are alike, so twice is little
TREND = 3.0
# ... and that of the later half of them, unless the rise is over
STILL_RISING = 1.0
# Before so many training images a generator is uniform or blotchy because it is new, not because it collapsed
LEAST_IMAGES = 30_000
# Logits of a discriminator that learns are tens, those of a critic without bounds perhaps hundreds
HIGHEST_LOGIT = 1e4
# A generator that never had variety may only be slow: it is judged after so many times the images
SLOW_START = 2
# After so many times the images, to find more of the data is an excuse no longer for what is missing
LEARNED = 4
# On record, LSGAN ended at 5 times and DCGAN at 2.8 times their best FID; a healthy run's fluctuations are below 2
FRECHET_RATIO = 3.0
# One evaluation may be an outlier: it must be this bad to count alone, else the one before must be bad as well
FRECHET_RATIO_ALONE = 9.0
# Distances within so many of the floor's spreads of it are a perfect model's, and their ratios are chance
FLOOR_SPREADS = 4.0
# ... and the best was seen in the first 80 % of the training, so that it is no single bad evaluation at the end
BEST_BEFORE = 0.8
# The discriminator is "perfect" (Arjovsky & Bottou 2017, theorem 2.4); in balance both accuracies are 0.5 to 0.85
PERFECT_ACCURACY = 0.95
# Minimax games that still moved, and collapsed, kept 4 % of their gradient; those that stood still fell below 1 %
VANISHED_GRADIENT = 0.03
# ... while D parts real from generated images as widely as ever; where the gap closes, the gradient is small because
# the game approaches its end
GAP_OF_PEAK = 0.5
# Pairwise distances of a generator that has the data's variety are 0.8 to 1.1 of the data's. New generators have 0.1 to
# 0.2 and learn variety: while the median rises by this factor from one lot of checks to the next, that is learning
LEAST_DIVERSITY = 0.5
RISING = 1.2
# Real images that are the nearest to some sample, relative to those nearest to other real images: two of eight modes,
# however far apart, reach 0.3 of them
LEAST_REACH_OF_SAMPLES = 0.5
# Recall and coverage are about 1 for the data themselves. Both must be this low, for recall alone is near 0 early in
# healthy runs (MLPs, Fashion-MNIST, 36,000 images: recall 0.005, coverage 0.19 when healthy, 0 and 0.04 when collapsed)
LEAST_REACH = 0.1
# ... while what it does draw looks real more often than that; if not, it is plainly bad rather than collapsed
PRECISION_LEAD = 0.1
# A class counts as missing with less than 5 % of its images; classifiers' mistakes do not make 30 % of classes so rare
MISSING_SHARE = 0.3
# Training and held-out images are alike to a discriminator that generalises (Karras et al. 2020, figure 1)
OVERFITTING_GAP = 0.25

ADVICE = {
    "healthy": "nothing needs to be changed",
    "mode collapse": "use --model.loss RelativisticLoss with the penalties R1 and R2, which hold on to all modes; "
    "else NonSaturatingLoss with R1, or a lower learning rate for the discriminator",
    "vanishing gradients": "use --model.loss NonSaturatingLoss, or RelativisticLoss with R1 and R2, instead of "
    "MinimaxLoss; a penalty such as R1 keeps the discriminator from certainty",
    "discriminator overfits": "add --model.augment DiffAugment or AdaptiveAugment, or train on more images",
    "diverged": "lower the learning rates, set generator_clip and discriminator_clip, or add the penalties R1 and R2; "
    "--checkpoint.monitor evaluation/frechet_distance keeps the best state",
}


@dataclasses.dataclass(frozen=True)
class Signs:
    """What is known of a training's health, most of it as the median of the latest five checks; None: not measured."""

    images_seen: int = 0  # in training
    checks: int = 0  # looks at the discriminator so far
    is_finite: bool = True  # all numbers of the latest check
    logit_magnitude: float | None = None  # how far logits are from the boundary, or from their partners, at most
    real_accuracy: float | None = None  # the share of training images that D takes for real
    fake_accuracy: float | None = None  # ... of generated images that it takes for generated
    held_out_accuracy: float | None = None  # ... of real images that it was not trained on, and takes for real
    logit_gap: float | None = None  # mean logit of real images minus that of generated ones
    logit_gap_peak: float | None = None  # the highest that was so far
    has_boundary: bool = True  # whether the loss has one; a critic's gradient does not vanish where it is right
    generator_gradient: float | None = None  # norm of the gradient that reaches G
    gradient_peak: float | None = None  # the highest that was so far
    diversity: float | None = None  # mean distance of two samples, relative to that of two real images
    diversity_before: float | None = None  # the same a few checks earlier
    diversity_peak: float | None = None  # the highest that was so far
    diversity_rises: bool = False  # by the trend of the latest checks
    reach: float | None = None  # distinct real images that samples are nearest to, relative to what real images are
    reach_before: float | None = None
    reach_peak: float | None = None
    reach_rises: bool = False
    still_rises: bool = False  # either of them, in the later half of these checks as well
    evaluated_at: int | None = None  # training images before the latest evaluation, of which is what follows
    precision: float | None = None
    recall: float | None = None
    coverage: float | None = None
    coverage_before: float | None = None  # in the evaluation before
    best_coverage: float | None = None  # of all
    missing_classes: float | None = None  # how many of num_classes are not drawn
    missing_before: float | None = None
    fewest_missing: float | None = None
    num_classes: float | None = None
    frechet_distance: float | None = None
    frechet_before: float | None = None
    frechet_floor: float | None = None  # what a perfect model gets, and its spread
    frechet_spread: float | None = None
    best_frechet_distance: float | None = None  # the lowest so far, at best_at training images
    best_at: int | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A name (a key of ``ADVICE``), the evidence for it as sentences, and what to do."""

    name: str
    reasons: list[str]

    @property
    def is_healthy(self) -> bool:
        """Whether there is nothing to be done."""
        return self.name == "healthy"

    @property
    def advice(self) -> str:
        """Which option to change."""
        return ADVICE[self.name]

    def __str__(self) -> str:
        return f"{self.name} ({'; '.join(self.reasons)}). Advice: {self.advice}."


def reach_verdict(signs: Signs) -> Verdict:
    """Return the first verdict that the signs call for; each is the cause of those after it, or hides them."""
    for name, rule in {
        "diverged": _divergence,
        "vanishing gradients": _vanishing_gradients,
        "mode collapse": _mode_collapse,
        "discriminator overfits": _overfitting,
    }.items():
        if reasons := rule(signs):
            return Verdict(name, reasons)
    return Verdict("healthy", _evidence(signs))


def _divergence(signs: Signs) -> list[str]:
    """Values without bounds, or samples that have become far worse than they were."""
    reasons = [] if signs.is_finite else ["losses, logits, gradients or samples are not finite"]
    if (signs.logit_magnitude or 0) > HIGHEST_LOGIT:
        reasons.append(f"logits reach {signs.logit_magnitude:.3g}")
    now, best = signs.frechet_distance, signs.best_frechet_distance
    if now is not None and best is not None and signs.best_at is not None:
        was_well_before = signs.best_at <= BEST_BEFORE * (signs.evaluated_at or signs.images_seen)
        if was_well_before and _is_worse(now, signs.frechet_before, best, signs):
            reasons.append(f"the Fréchet distance is {now:.3g}, after {best:.3g} at {signs.best_at:,} images")
    return reasons


def _is_worse(now: float, before: float | None, best: float, signs: Signs) -> bool:
    """Whether a distance is far above the best (or a perfect model's, if the best is near it), and not once only."""
    as_good_as_perfect = (signs.frechet_floor or 0.0) + FLOOR_SPREADS * (signs.frechet_spread or 0.0)
    reference = max(best, as_good_as_perfect)
    persists = before is not None and before > FRECHET_RATIO * reference
    return now > (FRECHET_RATIO if persists else FRECHET_RATIO_ALONE) * reference


def _vanishing_gradients(signs: Signs) -> list[str]:
    """D is nearly perfect, and G learns nothing from it (Goodfellow et al. 2014 section 3; Arjovsky & Bottou 2017)."""
    real, fake = signs.real_accuracy, signs.fake_accuracy
    gradient, peak = signs.generator_gradient, signs.gradient_peak
    if signs.checks < RECENT_CHECKS or real is None or fake is None or gradient is None or not peak:
        return []
    if min(real, fake) <= PERFECT_ACCURACY or gradient >= VANISHED_GRADIENT * peak or not signs.has_boundary:
        return []
    gap, gap_peak = signs.logit_gap, signs.logit_gap_peak
    if gap is not None and gap_peak is not None and gap < GAP_OF_PEAK * gap_peak:
        return []
    return [
        f"the discriminator is right on {real:.0%} of real and {fake:.0%} of generated images",
        f"the gradient that reaches the generator is {gradient / peak:.2g} of its peak",
    ]


def _mode_collapse(signs: Signs) -> list[str]:
    """G draws a small part of the data (Metz et al. 2017; Srivastava et al. 2017); not said of a new model."""
    uniform = _uniformity(signs) if signs.images_seen >= LEAST_IMAGES else []
    is_learning = signs.still_rises and _may_be_learning(signs)
    is_known = (signs.evaluated_at or 0) >= LEAST_IMAGES and not is_learning
    return uniform + (_absence(signs) if is_known else [])


def _may_be_learning(signs: Signs) -> bool:
    """Whether a training is so new that what it misses may be on its way."""
    return (signs.evaluated_at or 0) < LEARNED * LEAST_IMAGES


def _uniformity(signs: Signs) -> list[str]:
    reasons = []
    if _is_low(signs, "diversity", LEAST_DIVERSITY):
        reasons.append(f"the samples' diversity is {signs.diversity:.2g} of the real images'")
    elif _is_low(signs, "reach", LEAST_REACH_OF_SAMPLES):
        reasons.append(f"the samples are near to few of the real images, {signs.reach:.2g} of as many as real ones are")
    return reasons


def _is_low(signs: Signs, name: str, least: float) -> bool:
    """Whether a sign is low and does not rise. One that was never higher may yet begin to, and is judged later."""
    now, before, peak = (getattr(signs, f"{name}{part}") for part in ("", "_before", "_peak"))
    if now is None or before is None or now >= min(least, RISING * before) or getattr(signs, f"{name}_rises"):
        return False
    return peak is None or peak >= least or signs.images_seen >= SLOW_START * LEAST_IMAGES


def _absence(signs: Signs) -> list[str]:
    """What evaluations miss of the data, and do not find more of; of what was never found that is known later."""
    is_late = (signs.evaluated_at or 0) >= SLOW_START * LEAST_IMAGES
    reasons = []
    reach = {name: getattr(signs, name) for name in ("recall", "coverage") if getattr(signs, name) is not None}
    highest = max(reach.values(), default=math.inf)
    best, before = signs.best_coverage, signs.coverage_before
    had_more = is_late or best is None or best >= LEAST_REACH
    is_new = _may_be_learning(signs)
    finds_more = is_new and signs.coverage is not None and before is not None and signs.coverage > RISING * before
    if highest < LEAST_REACH and (signs.precision or 0) > highest + PRECISION_LEAD and had_more and not finds_more:
        found = " and ".join(f"{name} {value:.2g}" for name, value in reach.items())
        reasons.append(f"{found} are low for a precision of {signs.precision:.2g}")
    missing, most = signs.missing_classes or 0, MISSING_SHARE * (signs.num_classes or math.inf)
    had_more = is_late or signs.fewest_missing is None or signs.fewest_missing < most
    finds_more = is_new and signs.missing_before is not None and missing < signs.missing_before
    if missing >= most and had_more and not finds_more:
        reasons.append(f"{missing:.0f} of {signs.num_classes:.0f} classes are missing")
    return reasons


def _overfitting(signs: Signs) -> list[str]:
    """D knows its training images by heart (Karras et al. 2020, section 2)."""
    train, held_out = signs.real_accuracy, signs.held_out_accuracy
    if signs.checks < RECENT_CHECKS or train is None or held_out is None or train - held_out <= OVERFITTING_GAP:
        return []
    return [f"the discriminator takes {train:.0%} of the training images for real, but {held_out:.0%} of held-out ones"]


def _evidence(signs: Signs) -> list[str]:
    """What speaks for health, and what cannot be known yet or was not measured."""
    reasons = []
    if signs.images_seen < LEAST_IMAGES:
        reasons.append(f"collapse is not judged before {LEAST_IMAGES:,} training images")
    if signs.checks < RECENT_CHECKS:
        reasons.append(f"there were only {signs.checks} checks of the discriminator")
    accuracies = {"real": signs.real_accuracy, "generated": signs.fake_accuracy, "held-out": signs.held_out_accuracy}
    if found := [f"{value:.0%} of {name}" for name, value in accuracies.items() if value is not None]:
        reasons.append(f"the discriminator is right on {', '.join(found)} images")
    others = {name: getattr(signs, name) for name in ("diversity", "reach", "precision", "recall", "coverage")}
    reasons += [f"{name} {value:.2g}" for name, value in others.items() if value is not None]
    if signs.recall is None:
        reasons.append("recall, coverage and missing classes were not measured")
    return reasons


@dataclasses.dataclass
class History:
    """What was seen of a run, so far as verdicts need it; ``dataclasses.asdict`` is its whole state.

    Attributes:
        recent: The latest checks, each with its numbers by name; medians are taken of the last five and those before.
        peaks: The highest median so far of each sign whose fall says something.
        evaluation: The signs that come from evaluations.
    """

    checks: int = 0
    recent: list[dict[str, float]] = dataclasses.field(default_factory=list)
    gradient_peak: float = 0.0
    peaks: dict[str, float] = dataclasses.field(default_factory=dict)
    is_finite: bool = True
    evaluation: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add_check(self, values: dict[str, float]) -> None:
        """Add the numbers of a look at the discriminator, under the names that :class:`Signs` has for them."""
        self.checks += 1
        self.is_finite = all(map(math.isfinite, values.values()))
        self.recent = [*self.recent, values][-TREND_CHECKS:]
        latest = _median(self.recent[-RECENT_CHECKS:], "generator_gradient")
        self.gradient_peak = max(self.gradient_peak, latest or 0.0)
        if self.checks >= RECENT_CHECKS:  # a new generator's noise is as diverse as anything
            for name in ("diversity", "reach", "logit_gap"):
                value = _median(self.recent[-RECENT_CHECKS:], name)
                if value is not None:
                    self.peaks[name] = max(self.peaks.get(name, value), value)

    def add_evaluation(
        self,
        images_seen: int,
        metrics: dict[str, float],
        classes: dict[str, Any],
        floor: float | None = None,
        spread: float | None = None,
    ) -> None:
        """Add an :class:`~lit_generative.evaluation.Evaluation`.

        Args:
            images_seen: In training.
            metrics: Those of the evaluation.
            classes: The same.
            floor: The Fréchet distance that a perfect model gets.
            spread: The standard deviation of that.
        """
        last = self.evaluation
        distance = metrics.get("frechet_distance", metrics.get("fid"))
        best, best_at = self.evaluation.get("best_frechet_distance"), self.evaluation.get("best_at")
        if distance is not None and distance < (math.inf if best is None else best):
            best, best_at = distance, images_seen
        self.evaluation = {name: metrics.get(name) for name in ("precision", "recall", "coverage", "missing_classes")}
        self.evaluation |= {
            "evaluated_at": images_seen,
            "num_classes": len(classes.get("histogram", {})) or None,
            "coverage_before": last.get("coverage"),
            "best_coverage": _best(max, last.get("best_coverage"), metrics.get("coverage")),
            "missing_before": last.get("missing_classes"),
            "fewest_missing": _best(min, last.get("fewest_missing"), metrics.get("missing_classes")),
            "frechet_distance": distance,
            "frechet_before": last.get("frechet_distance"),
            "frechet_floor": floor,
            "frechet_spread": spread,
            "best_frechet_distance": best,
            "best_at": best_at,
        }

    def signs(self, images_seen: int, with_evaluation: bool = True, has_boundary: bool = True) -> Signs:
        """Return the signs as they are after ``images_seen`` images, with those of the latest evaluation or without."""
        before, latest = self.recent[-2 * RECENT_CHECKS : -RECENT_CHECKS], self.recent[-RECENT_CHECKS:]
        return Signs(
            images_seen=images_seen,
            checks=self.checks,
            is_finite=self.is_finite,
            gradient_peak=self.gradient_peak or None,
            has_boundary=has_boundary,
            diversity_before=_median(before, "diversity"),
            diversity_rises=_rises(self.recent, "diversity"),
            still_rises=any(_still_rises(self.recent, name) for name in ("diversity", "reach")),
            reach_before=_median(before, "reach"),
            reach_rises=_rises(self.recent, "reach"),
            **{f"{name}_peak": value for name, value in self.peaks.items()},  # type: ignore[arg-type]
            **{name: _median(latest, name) for name in (latest[0] if latest else ())},  # type: ignore[arg-type]
            **(self.evaluation if with_evaluation else {}),
        )


def _best(choose: Callable[..., float], *values: float | None) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return choose(known) if known else None


def _median(checks: list[dict[str, float]], name: str) -> float | None:
    values = _known(checks, name)
    return median(values) if values else None


def _rises(checks: list[dict[str, float]], name: str) -> bool:
    """Whether a sign rises beyond chance."""
    values = _known(checks, name)
    return len(values) > RECENT_CHECKS and _trend(values) > TREND


def _still_rises(checks: list[dict[str, float]], name: str) -> bool:
    """Whether it rises, and does in the later half of the checks, too."""
    return _rises(checks, name) and _trend(_known(checks, name)[-TREND_CHECKS // 2 :]) > STILL_RISING


def _known(checks: list[dict[str, float]], name: str) -> list[float]:
    return [check[name] for check in checks if math.isfinite(check.get(name, math.nan))]


def _trend(values: list[float]) -> float:
    """Return the statistic of Mann 1945 and Kendall, which compares each two of some values, over its deviation."""
    n = len(values)
    score = sum((b > a) - (b < a) for i, a in enumerate(values) for b in values[i + 1 :])
    return score / math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
