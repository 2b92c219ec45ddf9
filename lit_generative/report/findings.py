"""What the numbers say, in plain sentences: who is better at what, wherever the difference exceeds the spread."""

import dataclasses
from collections.abc import Sequence
from math import inf, isfinite

from lit_generative.report.columns import Column, distance_column, image_columns, quality_columns, speed_column
from lit_generative.report.results import Comparison, Run
from lit_generative.report.statistics import Number
from lit_generative.report.summary import stability

__all__ = ["Finding", "findings"]

# Where the middle of the samples' spectrum lies plainly off the real one's
BLURRED, NOISY = 0.8, 1.25
# Real test images come out below 0.01; a share of samples above this is more than near duplicates in the data
MEMORISED = 0.05


@dataclasses.dataclass(frozen=True)
class Finding:
    """A heading and one or two sentences."""

    title: str
    text: str


def findings(comparison: Comparison) -> list[Finding]:
    """Return what the comparison found: quality, diversity and speed, and what is remarkable besides."""
    groups = comparison.by_name()
    recall = next(column for column in quality_columns(comparison) if column.title == "Recall")
    everything = [
        Finding("Quality", _ranking(distance_column(comparison), groups, comparison)),
        Finding("Diversity", _ranking(recall, groups, comparison)),
        Finding("Speed", _ranking(speed_column(), groups, comparison)),
        *(
            Finding("Likelihood", _ranking(column, groups, comparison))
            for column in image_columns(comparison)
            if column.title.startswith("-log p") and len(_numbers(column, groups)) > 1
        ),
        Finding("Sharpness", _sharpness(groups)),
        Finding("Missing classes", _missing(groups)),
        Finding("Memorisation", _memorised(groups)),
        Finding("Stability", _stability(groups)),
    ]
    return [finding for finding in everything if finding.text]


def _numbers(column: Column, groups: dict[str, list[Run]]) -> dict[str, Number]:
    return {name: number for name, runs in groups.items() if (number := column.number(runs)) is not None}


def _ranking(column: Column, groups: dict[str, list[Run]], comparison: Comparison) -> str:
    """Who leads in a column beyond the spread, or between whom it cannot be said, and what real images reach."""
    better = column.better
    assert better is not None
    numbers = _numbers(column, groups)
    if not numbers:
        return f"{column.title} was not measured."
    ranked = sorted(numbers, key=lambda name: better.loss(numbers[name].mean) if isfinite(numbers[name].mean) else inf)
    best = numbers[ranked[0]]
    first = [name for name in ranked if name == ranked[0] or not best.beats(numbers[name], better)]
    leading, rest = (
        _listed([f"{name} {str(numbers[name]).rstrip('†')}" for name in ranked if (name in first) == is_first])
        for is_first in (True, False)
    )
    floor = column.floor(comparison)
    real = f" Real images reach {floor:.3g}." if floor is not None else ""
    others = f", before {rest}" if rest else ""
    claim = "no difference that exceeds the spread between " if len(first) > 1 else "best is " if rest else ""
    return f"{column.title} ({better.words}): {claim}{leading}{others}.{real}"


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def _means(groups: dict[str, list[Run]], metric: str) -> dict[str, float]:
    """The mean of a metric for each model that has it, finite ones only."""
    numbers = _numbers(Column(metric, lambda run: run.metrics.get(metric)), groups)
    return {name: number.mean for name, number in numbers.items() if isfinite(number.mean)}


def _sharpness(groups: dict[str, list[Run]]) -> str:
    means = _means(groups, "sharpness")
    sentences = [
        f"{name} is {'blurred' if mean < BLURRED else 'noisy'}: at high spatial frequencies it has {mean:.2f} times "
        "the power of real images."
        for name, mean in means.items()
        if not BLURRED <= mean <= NOISY
    ]
    return " ".join(sentences) or ("All models' samples are about as sharp as real images." if means else "")


def _missing(groups: dict[str, list[Run]]) -> str:
    missing = {name: dict.fromkeys(lost for run in runs for lost in run.missing) for name, runs in groups.items()}
    return " ".join(f"{name} does not draw {_listed(list(lost))}." for name, lost in missing.items() if lost)


def _memorised(groups: dict[str, list[Run]]) -> str:
    means = _means(groups, "memorised")
    copies = [f"{name} ({mean:.0%} of its samples)" for name, mean in means.items() if mean > MEMORISED]
    if copies:
        return f"Copies of training images are drawn by {_listed(copies)}; its other numbers do not speak for it."
    return "No model draws copies of training images to speak of." if means else ""


def _stability(groups: dict[str, list[Run]]) -> str:
    verdicts = {name: stability(runs) for name, runs in groups.items()}
    known = {name: verdict for name, verdict in verdicts.items() if verdict != "not measured"}
    if not known:
        return ""
    bad = [f"{name}: {verdict}." for name, verdict in known.items() if verdict != "stable"]
    return " ".join(bad) or f"Training was stable for {_listed(list(known))}."
