"""Models after equal minutes of training: whether they are, and what each had reached by then."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from lit_generative.report.results import Comparison, Point, Run

__all__ = ["common_minutes", "runs_at", "unequal_minutes"]

DIFFER = 0.1  # of the longest: a tenth more minutes are worth about as much as another seed


def unequal_minutes(comparison: Comparison) -> str:
    """Return a warning that models were trained for minutes that differ by more than a tenth, or ""."""
    minutes = _minutes(comparison)
    if len(minutes) < 2 or min(minutes.values()) >= (1 - DIFFER) * max(minutes.values()):
        return ""
    share = 1 - min(minutes.values()) / max(minutes.values())
    listed = ", ".join(f"{name} {value:.3g}" for name, value in minutes.items())
    return f"The measured minutes of training differ by {share:.0%}: {listed}. The tables are of the whole trainings."


def _minutes(comparison: Comparison) -> dict[str, float]:
    """Return the mean minutes of training of each model whose minutes were measured."""
    found = {
        name: [run.training.minutes for run in runs if run.training is not None and run.training.minutes is not None]
        for name, runs in comparison.by_name().items()
    }
    return {name: fmean(values) for name, values in found.items() if values}


def common_minutes(comparison: Comparison) -> float | None:
    """Return the most minutes up to which each run with a timed history was evaluated; None: two models have none."""
    histories = [(run.name, points) for run in comparison.runs if (points := _timed(run))]
    if len({name for name, _ in histories}) < 2:
        return None
    return min(points[-1].minutes or 0.0 for _, points in histories)


def _timed(run: Run) -> list[Point]:
    points = run.training.history if run.training is not None else []
    return sorted((point for point in points if point.minutes is not None), key=lambda point: point.minutes or 0.0)


def runs_at(runs: Sequence[Run], minutes: float) -> list[Run]:
    """Return the runs with the metrics that they had after some minutes, between two evaluations by a straight line.

    Runs that were not evaluated before and after are left out.
    """
    found = []
    for run in runs:
        metrics = _metrics_at(_timed(run), minutes)
        if metrics:
            found.append(dataclasses.replace(run, metrics=metrics, errors={}, missing=[]))
    return found


def _metrics_at(points: Sequence[Point], minutes: float) -> dict[str, float]:
    for point in points:
        if point.minutes == minutes:
            return point.metrics
    for before, after in pairwise(points):
        start, stop = before.minutes or 0.0, after.minutes or 0.0
        if start < minutes < stop:
            share = (minutes - start) / (stop - start)
            names = before.metrics.keys() & after.metrics.keys()
            return {name: (1 - share) * before.metrics[name] + share * after.metrics[name] for name in names}
    return {}
