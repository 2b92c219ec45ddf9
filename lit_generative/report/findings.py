"""What the numbers say, in plain sentences: who is better at what, wherever the difference exceeds the spread."""

import dataclasses
from collections.abc import Callable, Sequence
from math import isfinite

from lit_generative.report.columns import Column, distance_column, image_columns, quality_columns, speed_column
from lit_generative.report.ranking import Ranking, copies, rank
from lit_generative.report.results import Comparison, Run
from lit_generative.report.statistics import Number
from lit_generative.report.summary import stability

__all__ = ["Finding", "findings"]

# Where the middle of the samples' spectrum lies plainly off the real one's
BLURRED, NOISY = 0.8, 1.25


@dataclasses.dataclass(frozen=True)
class Finding:
    """A heading and one or two sentences."""

    title: str
    text: str


def findings(comparison: Comparison) -> list[Finding]:
    """Return what the comparison found: quality, diversity and speed, and what is remarkable besides."""
    groups, ranked = comparison.by_name(), rank(comparison)
    recall = next(column for column in quality_columns(comparison) if column.title == "Recall")
    everything = [
        Finding("Quality", _ranking(distance_column(comparison), ranked, comparison)),
        Finding("Diversity", _ranking(recall, ranked, comparison)),
        Finding("Speed", _ranking(speed_column(), ranked, comparison)),
        *(
            Finding("Likelihood", _ranking(column, ranked, comparison))
            for column in image_columns(comparison)
            if column.title.startswith("-log p") and len(_numbers(column, groups)) > 1
        ),
        Finding("Sharpness", _sharpness(groups)),
        Finding("Missing classes", _missing(groups)),
        Finding("Memorisation", _memorised(groups, comparison)),
        Finding("Stability", _stability(groups)),
    ]
    return [finding for finding in everything if finding.text]


def _numbers(column: Column, groups: dict[str, list[Run]]) -> dict[str, Number]:
    return {name: number for name, runs in groups.items() if (number := column.number(runs)) is not None}


def _ranking(column: Column, ranked: dict[str, Ranking], comparison: Comparison) -> str:
    """Who leads in a column beyond chance, or between whom it cannot be said, and what real images reach."""
    better, found = column.better, ranked[column.title]
    assert better is not None
    if not found.numbers:
        return f"{column.title} was not measured."

    def named(names: Sequence[str]) -> str:
        return _listed([f"{name} {str(found.numbers[name]).rstrip('†')}" for name in names])

    floor = column.floor(comparison)
    sentences = [f"{column.title} ({better.words}): {_claim(found, named)}."] if found.order else []
    if found.beyond:
        sentences.append(f"Better than real images, which is no better model, and not ranked: {named(found.beyond)}.")
    if others := [name for name in found.copiers if name not in found.beyond]:
        sentences.append(f"Not ranked, for copies of training images: {named(others)}.")
    if floor is not None:
        sentences.append(f"Real images reach {floor:.3g}.")
    return " ".join(sentences)


def _claim(found: Ranking, named: Callable[[Sequence[str]], str]) -> str:
    """Say who is best, or among whom there is no difference that was tested and found."""
    if found.best is not None:
        return f"best is {named([found.best])}, before {named(found.order[1:])}"
    if len(found.order) == 1:
        return named(found.order)
    if found.untested:
        return f"one training: differences are not tested; {named(found.order)}"
    if len(found.equals) == 1:  # beyond chance in this column alone, not among all that are shown
        return f"no difference that is sure among so many columns; {named(found.order)}"
    rest = [name for name in found.order if name not in found.equals]
    return f"no difference beyond chance between {named(found.equals)}{f', before {named(rest)}' if rest else ''}"


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


def _memorised(groups: dict[str, list[Run]], comparison: Comparison) -> str:
    found = {name: how for name, runs in groups.items() if (how := copies(comparison, runs))}
    if found:
        listed = _listed([f"{name} ({how})" for name, how in found.items()])
        return f"Copies of training images are drawn by {listed}; its other numbers do not speak for it."
    return "No model draws copies of training images to speak of." if _means(groups, "memorised") else ""


def _stability(groups: dict[str, list[Run]]) -> str:
    verdicts = {name: stability(runs) for name, runs in groups.items()}
    known = {name: verdict for name, verdict in verdicts.items() if verdict != "not measured"}
    if not known:
        return ""
    bad = [f"{name}: {verdict}." for name, verdict in known.items() if verdict != "stable"]
    return " ".join(bad) or f"Training was stable for {_listed(list(known))}."
