import pytest
from comparisons import comparison, run

from lit_generative.report.markdown import escaped, markdown_report, markdown_table
from lit_generative.report.sections import Sections
from lit_generative.report.summary import Cell, Row, Table


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", r"a\|b"), ("<b>", r"\<b\>"), ("a_b*c`d", r"a\_b\*c\`d"), ("two\nlines", "two lines"), ("±†", "±†")],
)  # fmt: skip
def test_text_is_shown_as_it_is(text: str, shown: str) -> None:
    assert escaped(text) == shown


def test_a_table_has_as_many_cells_in_each_line() -> None:
    rows = [Row("a|b", "1 run", [Cell("1 ± 2", is_best=True), Cell("5", "bag, coat")])]
    assert markdown_table(Table("", "", ["x ↓", "y"], rows)).splitlines() == [
        "| model | runs | x ↓ | y |",
        "| --- | --- | ---: | ---: |",
        r"| a\|b | 1 run | **1 ± 2** | 5: bag, coat |",
    ]


def test_a_command_with_backticks_stays_in_its_block() -> None:
    found = comparison(run("a"))
    found.command = "compare ```x```"
    assert "````bash\ncompare ```x```\n````" in markdown_report(Sections(found))


def test_a_protocol_that_differs_is_said_for_each_model() -> None:
    sampler = {"class_path": "a.b.DDIM", "init_args": {"steps": 20, "eta": None}}
    found = comparison(run("a", protocol={"seed": 0, "sampler": sampler}), run("b", protocol={"seed": 0}))
    assert Sections(found).protocol == {"seed": "0", "sampler": "a: DDIM(steps 20, eta none); b: none"}


def test_a_warning_is_said_once() -> None:
    first, second = run("a", warnings=["All.", "One."]), run("b", warnings=["All."])
    again = run("a", seed=1, warnings=["All.", "One."])
    assert Sections(comparison(first, again, second)).warnings == ["All.", "a: One."]
