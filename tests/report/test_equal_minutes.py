"""Minutes that differ are said, and what each model had reached after equal ones is shown."""

import pytest
from comparisons import comparison, run

from lit_generative.report.equal_minutes import common_minutes, runs_at, unequal_minutes
from lit_generative.report.results import Point, Run, Training
from lit_generative.report.sections import Sections
from lit_generative.report.summary import summarise


def trained(name: str, minutes: float | None, *history: tuple[float, float]) -> Run:
    """A run with its minutes, and the distances after some of them; recall is a tenth of that."""
    points = [Point({"frechet_distance": value, "recall": value / 10}, images=1, minutes=at) for at, value in history]
    return run(name, training=Training(1000, minutes, history=points))


def test_minutes_that_differ_by_more_than_a_tenth_are_a_warning() -> None:
    assert unequal_minutes(comparison(trained("a", 2.0), trained("b", 2.2))) == ""
    found = comparison(trained("a", 2.0), trained("b", 2.3), trained("b", 2.5), trained("c", None))
    assert unequal_minutes(found).startswith("The measured minutes of training differ by 17%: a 2, b 2.4.")
    assert Sections(found).warnings[0] == unequal_minutes(found)
    assert unequal_minutes(comparison(trained("a", 2.0), trained("c", None))) == ""


def test_metrics_are_read_off_between_the_nearest_evaluations() -> None:
    fast, slow = trained("fast", 2.0, (0.5, 8.0), (1.0, 6.0), (2.0, 4.0)), trained("slow", 4.0, (1.0, 9.0), (4.0, 3.0))
    found = comparison(fast, slow)
    assert common_minutes(found) == 2.0
    at_two = runs_at(found.runs, 2.0)
    assert [one.metrics["frechet_distance"] for one in at_two] == pytest.approx([4.0, 7.0])
    assert at_two[1].metrics["recall"] == pytest.approx(0.7)
    assert [one.metrics["frechet_distance"] for one in runs_at(found.runs, 0.75)] == [7.0]
    table = next(table for table in summarise(found) if table.title == "After 2 minutes of training each")
    assert [[cell.text for cell in row.cells[:1]] for row in table.rows] == [["4"], ["7"]]
    assert not any(cell.is_best for row in table.rows for cell in row.cells)


def test_without_two_timed_histories_there_is_no_table() -> None:
    found = comparison(trained("a", 2.0, (1.0, 3.0), (2.0, 2.0)), trained("b", 2.0))
    assert common_minutes(found) is None
    assert not any("minutes of training each" in table.title for table in summarise(found))
