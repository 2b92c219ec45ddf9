"""The report as Markdown, with links to the plots' files."""

import re

from lit_generative.report.galleries import Gallery
from lit_generative.report.plots import Plot
from lit_generative.report.sections import Sections
from lit_generative.report.statistics import RULE, SPREADS
from lit_generative.report.summary import Cell, Table

__all__ = ["escaped", "markdown_report", "markdown_table"]


def markdown_report(sections: Sections) -> str:
    """Return the text of ``report.md``."""
    comparison = sections.comparison
    blocks = [
        f"# {escaped(sections.title)}",
        f"Measured on {escaped(comparison.machine)}, {escaped(comparison.date)}, by",
        _code(comparison.command),
        *(f"> **Warning.** {escaped(warning)}" for warning in sections.warnings),
        "## Findings",
        "\n".join(f"- **{escaped(finding.title)}.** {escaped(finding.text)}" for finding in sections.findings),
    ]
    for table in sections.tables:
        blocks += [f"## {escaped(table.title)}", markdown_table(table), escaped(table.note)]
    blocks += [SPREADS, escaped(RULE)]
    pictures: list[Plot | Gallery] = [*(drawn.plot for drawn in sections.plots), *sections.galleries]
    for picture in pictures:
        blocks += [
            f"## {escaped(picture.title)}",
            f"![{escaped(picture.title)}](plots/{picture.name}.png)",
            f"{escaped(picture.caption)} ([SVG](plots/{picture.name}.svg))",
        ]
    blocks += map(escaped, sections.absent)
    blocks += ["## Protocol", "\n".join(f"- {escaped(k)}: {escaped(v)}" for k, v in sections.protocol.items())]
    return "\n\n".join(blocks) + "\n"


def markdown_table(table: Table) -> str:
    """Return a table in GitHub's Markdown; best numbers are bold."""
    lines = [["model", "runs", *table.headings], ["---", "---", *["---:"] * len(table.headings)]]
    lines = [[escaped(cell) for cell in lines[0]], lines[1]]
    lines += [[escaped(row.name), row.runs, *map(_cell, row.cells)] for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell) -> str:
    text = f"**{escaped(cell.text)}**" if cell.is_best else escaped(cell.text)
    return f"{text}: {escaped(cell.detail)}" if cell.detail else text


def _code(text: str) -> str:
    """A block of code whose fence is longer than any that the text has."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}bash\n{text}\n{fence}"


def escaped(text: str) -> str:
    """Return text that Markdown and HTML show as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|~#])", r"\\\1", " ".join(text.split()))
