"""Who is best in each column: never by chance, never a copier, never what is better than real images."""

import dataclasses
from collections.abc import Sequence
from math import inf, isfinite

from lit_generative.report.columns import Column, cost_columns, history_columns, image_columns, quality_columns
from lit_generative.report.results import Comparison, Run
from lit_generative.report.statistics import Number, holm

__all__ = ["MEMORISED", "Ranking", "copies", "rank"]

# Real test images come out below 0.01; a share of samples above this is more than near duplicates in the data
MEMORISED = 0.05
# Real images are authentic in about two of three cases, copies never, noisy copies in one of fifty
AUTHENTIC_OF_FLOOR = 0.5


@dataclasses.dataclass(frozen=True)
class Ranking:
    """What can be said of a column.

    Attributes:
        numbers: Of each model that has one.
        order: The models that are ranked, the best first.
        best: The one that leads all others beyond chance; None: there is none.
        equals: Those that the first does not lead beyond chance, itself included.
        untested: Those of them whose difference cannot be tested, for there is one training.
        beyond: Those whose number is better than what real images reach, which are not ranked.
        copiers: Those that draw copies of training images, which are not ranked.
    """

    numbers: dict[str, Number]
    order: list[str]
    best: str | None
    equals: list[str]
    untested: list[str]
    beyond: list[str]
    copiers: list[str]


def copies(comparison: Comparison, runs: Sequence[Run]) -> str:
    """Return by what the samples of a model's runs are found to be copies of training images, or ""."""
    shares = {
        name: max((run.metrics[name] for run in runs if name in run.metrics), default=0.0)
        for name in ("memorised", "memorised_features")
    }
    if (share := max(shares.values())) > MEMORISED:
        return f"{share:.0%} of its samples"
    authentic = min((run.metrics["authenticity"] for run in runs if "authenticity" in run.metrics), default=inf)
    if authentic < AUTHENTIC_OF_FLOOR * comparison.floor.get("authenticity", 0.0):
        return f"{authentic:.0%} of its samples are authentic"
    return ""


def rank(comparison: Comparison) -> dict[str, Ranking]:
    """Return the ranking of each column of the report in which one way is better, by the column's title."""
    groups = comparison.by_name()
    copiers = [name for name, runs in groups.items() if copies(comparison, runs)]
    columns = [
        *quality_columns(comparison),
        *image_columns(comparison),
        *cost_columns(),
        *history_columns(comparison),
    ]
    ranked = {column.title: column for column in columns if column.better is not None}
    prepared = {title: _prepare(column, comparison, copiers) for title, column in ranked.items()}
    chances = {title: chance for title, (_, chance) in prepared.items() if chance is not None}
    sure = holm(chances)
    return {
        title: dataclasses.replace(found, best=found.order[0] if title in sure else None)
        for title, (found, _) in prepared.items()
    }


def _prepare(column: Column, comparison: Comparison, copiers: list[str]) -> tuple[Ranking, float | None]:
    """Return a column's ranking without its best, and the chance of its first one's lead; None: not tested."""
    better = column.better
    assert better is not None
    found = {name: number for name, runs in comparison.by_name().items() if (number := column.number(runs)) is not None}
    floor = column.floor(comparison)
    beyond = [
        name
        for name, number in found.items()
        if floor is not None and isfinite(number.mean) and better.loss(number.mean) < better.loss(floor)
    ]
    excluded = {*beyond, *copiers}
    order = sorted(
        (name for name in found if name not in excluded),
        key=lambda name: better.loss(found[name].mean) if isfinite(found[name].mean) else inf,
    )
    rivals = {name: found[order[0]].chance(found[name], better) for name in order[1:]}
    corrected = {name: None if chance is None else min(chance * len(order), 1.0) for name, chance in rivals.items()}
    known = [chance for chance in corrected.values() if chance is not None]
    chance = max(known) if known and len(known) == len(rivals) else None
    equals = order[:1] + [name for name in order[1:] if (value := corrected[name]) is None or value > 0.05]
    untested = [name for name in order[1:] if corrected[name] is None]
    return Ranking(found, order, None, equals, untested, beyond, [name for name in found if name in copiers]), chance
