"""The tables of a comparison: a row for each model, and what real images reach as the first."""

import dataclasses
from collections.abc import Callable, Sequence
from math import isfinite
from statistics import fmean, stdev

from lit_generative.report.columns import (
    SMOOTHED,
    Column,
    class_columns,
    cost_columns,
    distance,
    distances,
    extended_columns,
    history_columns,
    image_columns,
    last_over_best,
    quality_columns,
)
from lit_generative.report.equal_minutes import common_minutes, runs_at
from lit_generative.report.ranking import rank
from lit_generative.report.results import Comparison, Run
from lit_generative.report.statistics import Number

__all__ = ["FLOOR", "ONE_TRAINING", "Cell", "Row", "Table", "stability", "summarise"]

FLOOR = "real images (the floor)"
OF_CLASSES = ("Missing classes", "Class accuracy")
ONE_TRAINING = "one training: differences are not tested"

# Distances of a healthy run fluctuate by some 10 %: of few evaluations, the last is beyond this once in twenty runs
WORSE_THAN_BEST, WORSE_OF_FEW = 1.25, 1.4
# Shares of the mean by which seeds of the shipped recipes differ are 2 to 5 %
SEEDS_DIFFER = 0.25


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a table says in one place: a text, a smaller one below it, and whether it is bold."""

    text: str
    detail: str = ""
    is_best: bool = False

    @property
    def is_number(self) -> bool:
        """Whether it begins with a digit, after a sign perhaps."""
        return any(character.isdigit() for character in self.text[:2])


@dataclasses.dataclass(frozen=True)
class Row:
    """One model's cells; ``name`` is the model's, and ``runs`` says how many runs the numbers are of."""

    name: str
    runs: str
    cells: list[Cell]


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of the summary.

    Attributes:
        title: What it is about.
        note: How to read it.
        headings: Of the columns after the model's name and its runs.
        rows: Real images, where they have a place, and the models.
    """

    title: str
    note: str
    headings: list[str]
    rows: list[Row]


def summarise(comparison: Comparison) -> list[Table]:
    """Return the tables: quality, images, cost and stability of models, and where known what papers have besides.

    That is FD-infinity and the like, distances by class, and quality after equal minutes.
    """
    return [
        _table(
            "Quality and diversity",
            "Precision and density say how many samples look real, recall and coverage how much of the real images' "
            "variety they have. The first row is what a perfect model would get: real images against others, none of "
            "which was trained on. A number better than that is no better model, and is never bold.",
            quality_columns(comparison),
            comparison,
        ),
        _table(
            "Likelihood, sharpness and memorisation",
            "Sharpness is the power at high spatial frequencies over that of real images: less than 1 is blurred, more "
            "is noisy. The distance to training images is relative to that of real images that nothing was trained on. "
            "The memorised share is that of samples that copy a training image, as it is or mirrored, and in the "
            "extractor's features; the authentic share is that of samples that are farther from the nearest training "
            "image than that is from its own neighbour (Alaa et al. 2022). The last column is the Fréchet distance to "
            "test images less that to as many training images: above 0, those are known better.",
            image_columns(comparison),
            comparison,
        ),
        *_extended(comparison),
        *(_of_trainings(comparison) if any(run.family != "images" for run in comparison.runs) else []),
    ]


def _table(title: str, note: str, columns: Sequence[Column], comparison: Comparison) -> Table:
    groups = comparison.by_name()
    best = {title: found.best for title, found in rank(comparison).items()}
    columns_of_cells = [_cells(column, groups, best.get(column.title)) for column in columns]
    rows = [Row(name, _count(runs), [cells[name] for cells in columns_of_cells]) for name, runs in groups.items()]
    floor = [(column.floor(comparison), column.floor_spread(comparison)) for column in columns]
    if any(value is not None for value, _ in floor):
        cells = [Cell("–" if value is None else str(Number(value, spread))) for value, spread in floor]
        rows.insert(0, Row(FLOOR, "", cells))
    return Table(title, note, [column.heading for column in columns], rows)


def _of_trainings(comparison: Comparison) -> list[Table]:
    return [
        _table("Cost", "Minutes of training leave out validation and evaluation.", cost_columns(), comparison),
        *_at_equal_minutes(comparison),
        _stability_table(comparison),
    ]


def _extended(comparison: Comparison) -> list[Table]:
    tables = {
        "Other distances and variety": (
            "Distances of infinitely many samples are extrapolated (Chong & Forsyth 2020), against the real images "
            "that there are. The Vendi score is the effective number of different images (Friedman & Dieng 2023), of "
            "as many samples as real images. Nothing is tested here.",
            extended_columns(comparison),
        ),
        "Kernel distance by class": (
            "Of the classes that samples were asked to be of, or else of those that the extractor puts images into.",
            class_columns(comparison),
        ),
    }
    return [_table(title, note, columns, comparison) for title, (note, columns) in tables.items() if columns]


def _at_equal_minutes(comparison: Comparison) -> list[Table]:
    minutes = common_minutes(comparison)
    if minutes is None:
        return []
    columns = [column for column in quality_columns(comparison) if column.title not in OF_CLASSES]
    groups = {name: found for name, runs in comparison.by_name().items() if (found := runs_at(runs, minutes))}
    cells = [_cells(column, groups, None) for column in columns]
    rows = [Row(name, _count(runs), [of_column[name] for of_column in cells]) for name, runs in groups.items()]
    note = (
        "From the evaluations during the trainings, on validation images and with fewer samples perhaps, by a straight "
        "line between the two nearest ones: the most minutes that all models have. Nothing is tested here."
    )
    title = f"After {minutes:.3g} minutes of training each"
    return [Table(title, note, [column.heading for column in columns], rows)]


def _cells(column: Column, groups: dict[str, list[Run]], best: str | None) -> dict[str, Cell]:
    """Return a column's cell for each model."""
    cells = {}
    for name, runs in groups.items():
        number = column.number(runs)
        text = column.absent(runs[0]) if number is None else str(number)
        if number is not None and number.count < len(runs):
            text += f" ({number.count} of {len(runs)} runs)"
        interval = number.interval if number is not None and column.better is not None else ""
        detail = "; ".join(filter(None, (interval, column.detail(runs))))
        cells[name] = Cell(text, detail, name == best)
    return cells


def _count(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} seeds"
    return "given images" if runs[0].family == "images" else ONE_TRAINING


def _stability_table(comparison: Comparison) -> Table:
    table = _table(
        "Stability",
        f"Best and last are of the evaluations during the training, on validation images. A run got worse after its "
        f"best if the last is more than {WORSE_THAN_BEST} times the best ({WORSE_OF_FEW} of fewer than {SMOOTHED}) "
        f"and seeds differ if the standard deviation of the final distance exceeds {SEEDS_DIFFER:.0%} of its mean.",
        history_columns(comparison),
        comparison,
    )
    groups = comparison.by_name()
    rows = [
        Row(row.name, row.runs, [Cell(groups[row.name][0].family), *row.cells, Cell(stability(groups[row.name]))])
        for row in table.rows
    ]
    return Table(table.title, table.note, ["Family", *table.headings, "Verdict"], rows)


def stability(runs: Sequence[Run]) -> str:
    """Return the verdict on the trainings of one model: "stable", what speaks against it, or "not measured"."""
    signs = [
        _share("a loss was not finite", runs, lambda run: run.training is not None and not run.training.is_finite),
        *_alarms(runs),
        _share("got worse after its best", runs, _got_worse),
        _seeds_differ(runs),
    ]
    if found := [sign for sign in signs if sign]:
        return "; ".join(found)
    was_watched = any(
        last_over_best(run) is not None or (run.training is not None and run.training.verdict) for run in runs
    )
    return "stable" if was_watched or len(_distances(runs)) > 1 else "not measured"


def _got_worse(run: Run) -> bool:
    return (last_over_best(run) or 0) > (WORSE_THAN_BEST if len(distances(run)) >= SMOOTHED else WORSE_OF_FEW)


def _distances(runs: Sequence[Run]) -> list[float]:
    """Return the final distances of the runs of one model, as far as they were measured."""
    return [value for run in runs if (value := distance(run)) is not None]


def _alarms(runs: Sequence[Run]) -> list[str]:
    """What ``GANHealth`` said of runs that it did not find healthy."""
    verdicts = [run.training.verdict for run in runs if run.training is not None]
    alarms = dict.fromkeys(verdict for verdict in verdicts if verdict not in (None, "healthy"))
    return [f"{alarm}{_of(verdicts.count(alarm), len(runs))}" for alarm in alarms]


def _share(sign: str, runs: Sequence[Run], is_so: Callable[[Run], bool]) -> str:
    count = sum(map(is_so, runs))
    return f"{sign}{_of(count, len(runs))}" if count else ""


def _of(count: int, runs: int) -> str:
    return "" if runs == 1 else f" ({count} of {runs} seeds)"


def _seeds_differ(runs: Sequence[Run]) -> str:
    found = _distances(runs)
    if len(found) < 2 or not all(map(isfinite, found)) or fmean(found) <= 0:
        return ""
    share = stdev(found) / fmean(found)
    return f"seeds differ by {share:.0%} of their mean" if share > SEEDS_DIFFER else ""
