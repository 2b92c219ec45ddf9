"""The tables of a comparison in a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from lit_generative.report.equal_minutes import unequal_minutes
from lit_generative.report.results import Comparison
from lit_generative.report.statistics import SPREADS
from lit_generative.report.summary import FLOOR, Cell, summarise

__all__ = ["print_comparison"]


def print_comparison(comparison: Comparison) -> None:
    """Print the tables as one: a line for each number, a column for each model, what is best in bold."""
    models = [FLOOR, *comparison.by_name()]
    columns = [Column("real images" if name == FLOOR else name, overflow="fold") for name in models]
    printed = Table(Column("", max_width=28), *columns, box=SIMPLE_HEAD, pad_edge=False)
    for table in summarise(comparison):
        printed.add_section()
        cells = {row.name: row.cells for row in table.rows}
        for i, heading in enumerate(table.headings):
            found = [cells[name][i] if name in cells else Cell("") for name in models]
            printed.add_row(heading, *(f"[bold]{cell.text}[/bold]" if cell.is_best else cell.text for cell in found))
    console = Console()
    console.print(printed)
    console.print(SPREADS, highlight=False)
    if warning := unequal_minutes(comparison):
        console.print(warning, highlight=False)
