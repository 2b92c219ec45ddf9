"""The tables of a comparison: a row for each model, and what real images reach as the first."""

import dataclasses
from collections.abc import Callable, Sequence
from math import isfinite

from lit_generative.report.columns import (
    Column,
    cost_columns,
    distance_column,
    history_columns,
    image_columns,
    last_over_best,
    quality_columns,
)
from lit_generative.report.results import Comparison, Run
from lit_generative.report.statistics import leader

__all__ = ["FLOOR", "Cell", "Row", "Table", "stability", "summarise"]

FLOOR = "real images (the floor)"

# Sampling and the game's fluctuations make a healthy run's last evaluation some 10 % worse than its best
WORSE_THAN_BEST = 1.25
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
    """Return the tables: quality, images, cost and stability."""
    return [
        _table(
            "Quality and diversity",
            "Precision and density say how many samples look real, recall and coverage how much of the real images' "
            "variety they have. No model is expected to do better than real images, the first row.",
            quality_columns(comparison),
            comparison,
        ),
        _table(
            "Likelihood, sharpness and memorisation",
            "Sharpness is the power at high spatial frequencies over that of real images: less than 1 is blurred, more "
            "is noisy. The memorised share is that of samples that copy a training image; the distance to training "
            "images is relative to that of real images that no model was trained on.",
            image_columns(comparison),
            comparison,
        ),
        _table("Cost", "Minutes of training leave out validation and evaluation.", cost_columns(), comparison),
        _stability_table(comparison),
    ]


def _table(title: str, note: str, columns: Sequence[Column], comparison: Comparison) -> Table:
    groups = comparison.by_name()
    columns_of_cells = [_cells(column, groups) for column in columns]
    rows = [Row(name, _count(runs), [cells[name] for cells in columns_of_cells]) for name, runs in groups.items()]
    floor = [column.floor(comparison) for column in columns]
    if any(value is not None for value in floor):
        cells = [Cell("–" if value is None else f"{value:.3g}") for value in floor]
        rows.insert(0, Row(FLOOR, "", cells))
    return Table(title, note, [column.heading for column in columns], rows)


def _cells(column: Column, groups: dict[str, list[Run]]) -> dict[str, Cell]:
    """Return a column's cell for each model."""
    found = {name: number for name, runs in groups.items() if (number := column.number(runs)) is not None}
    best = leader(found, column.better) if column.better else None
    cells = {}
    for name, runs in groups.items():
        number = found.get(name)
        text = column.absent(runs[0]) if number is None else str(number)
        if number is not None and number.count < len(runs):
            text += f" ({number.count} of {len(runs)} runs)"
        cells[name] = Cell(text, column.detail(runs), name == best)
    return cells


def _count(runs: Sequence[Run]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} seeds"


def _stability_table(comparison: Comparison) -> Table:
    table = _table(
        "Stability",
        f"Best and last are of the evaluations during the training, on validation images. A run got worse after its "
        f"best if the last is more than {WORSE_THAN_BEST} times the best, and seeds differ if the standard deviation "
        f"of the final distance exceeds {SEEDS_DIFFER:.0%} of its mean.",
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
        _share("got worse after its best", runs, lambda run: (last_over_best(run) or 0) > WORSE_THAN_BEST),
        _seeds_differ(runs),
    ]
    if found := [sign for sign in signs if sign]:
        return "; ".join(found)
    was_watched = any(
        last_over_best(run) is not None or (run.training is not None and run.training.verdict) for run in runs
    )
    return "stable" if was_watched or len(runs) > 1 else "not measured"


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
    number = distance_column(Comparison(list(runs), {}, [], "", "", "")).number(runs)
    if number is None or number.count < 2 or not number.spread or not isfinite(number.mean) or number.mean <= 0:
        return ""
    share = number.spread / number.mean
    return f"seeds differ by {share:.0%} of their mean" if share > SEEDS_DIFFER else ""
