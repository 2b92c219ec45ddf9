"""The report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

import re
from base64 import b64encode
from html import escape
from pathlib import Path

from lit_generative.report.findings import findings
from lit_generative.report.results import Comparison
from lit_generative.report.sections import Gallery, Illustration, Parts, facts, warnings
from lit_generative.report.statistics import RULE, SPREADS
from lit_generative.report.summary import Cell, Row, Table, summarise
from lit_generative.report.theme import Look

__all__ = ["html_report"]

_STYLE = Path(__file__).with_name("report.css")


def html_report(comparison: Comparison, parts: Parts) -> str:
    """Return the text of ``report.html``."""
    look = Look.of(comparison.by_name())
    title = f"Comparison of {', '.join(comparison.by_name())}"
    body = "\n".join(
        [
            _header(comparison, title),
            "<main>",
            _warnings(comparison),
            _findings(comparison),
            *(_table(table, look) for table in summarise(comparison)),
            f'<section class="reading"><h2>How to read the numbers</h2><p>{escape(SPREADS)}</p><p>{escape(RULE)}</p>'
            "</section>",
            _plots(parts, list(comparison.by_name())),
            *(_gallery(gallery, look) for gallery in parts.galleries),
            _protocol(comparison),
            "</main>",
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _header(comparison: Comparison, title: str) -> str:
    return (
        f"<header><h1>{escape(title)}</h1>"
        f'<p><time datetime="{escape(comparison.date)}">{escape(comparison.date)}</time> · '
        f"{escape(comparison.machine)}</p>"
        f"<pre><code>{escape(comparison.command)}</code></pre></header>"
    )


def _warnings(comparison: Comparison) -> str:
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings(comparison))
    return f'<section class="warnings"><h2>Warnings</h2><ul>{items}</ul></section>' if items else ""


def _findings(comparison: Comparison) -> str:
    items = "".join(
        f"<div><h3>{escape(finding.title)}</h3><p>{_unbroken(finding.text)}</p></div>"
        for finding in findings(comparison)
    )
    return f'<section><h2>Findings</h2><div class="findings">{items}</div></section>'


def _table(table: Table, look: Look) -> str:
    headings = "".join(f'<th scope="col">{_unbroken(heading)}</th>' for heading in ("Model", *table.headings))
    rows = "".join(_row(row, look) for row in table.rows)
    title = escape(table.title)
    return (
        f'<section><h2>{title}</h2><div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f"<table><thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="note">{escape(table.note)}</p></section>'
    )


def _row(row: Row, look: Look) -> str:
    runs = f"<small>{escape(row.runs)}</small>" if row.runs else ""
    cells = "".join(map(_cell, row.cells))
    kind = "" if row.runs else ' class="floor"'
    return f'<tr{kind}><th scope="row">{_named(row.name, look)}{runs}</th>{cells}</tr>'


def _named(name: str, look: Look) -> str:
    """A name behind the colour that it has in the plots."""
    colour = look.colours.get(name)
    if colour is None:
        return escape(name)
    return f'<span class="name"><span class="swatch" style="background:{colour}"></span>{escape(name)}</span>'


def _cell(cell: Cell) -> str:
    text = f"<strong>{escape(cell.text)}</strong>" if cell.is_best else escape(cell.text)
    detail = f"<small>{escape(cell.detail)}</small>" if cell.detail else ""
    is_number = any(character.isdigit() for character in cell.text[:2])
    return f"<td>{text}{detail}</td>" if is_number else f'<td class="words">{text}{detail}</td>'


def _unbroken(text: str) -> str:
    """Escaped text whose lines do not break before an arrow or around ±."""
    return re.sub(r" (?=[±↓↑→])|(?<=[±→]) ", "\u00a0", escape(text))


def _plots(parts: Parts, names: list[str]) -> str:
    figures = "".join(_illustration(plot, names) for plot in parts.plots)
    absent = "".join(f'<p class="note">{escape(sentence)}</p>' for sentence in parts.absent)
    return f'<section><h2>Plots</h2><div class="plots">{figures}</div>{absent}</section>'


def _illustration(plot: Illustration, names: list[str]) -> str:
    alt = f"Plot of {plot.title.lower()} of {', '.join(names)}. {plot.caption} The numbers are in the tables."
    light, dark = (_data("image/svg+xml", content) for content in (plot.light, plot.dark))
    return (
        f"<figure><h3>{escape(plot.title)}</h3>"
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(alt)}"></picture><figcaption>{escape(plot.caption)}</figcaption></figure>'
    )


def _gallery(gallery: Gallery, look: Look) -> str:
    figures = "".join(
        f'<figure><img class="pixels" src="{_data("image/png", image)}" '
        f'alt="{escape(f"{gallery.title}: {name}")}"><figcaption>{_named(name, look)}</figcaption></figure>'
        for name, image in gallery.images.items()
    )
    return (
        f"<section><h2>{escape(gallery.title)}</h2><p>{escape(gallery.caption)}</p>"
        f'<div class="gallery">{figures}</div></section>'
    )


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _protocol(comparison: Comparison) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts(comparison).items())
    sources = "".join(
        f"<dt>{escape(run.name)}{'' if run.seed is None else f', seed {run.seed}'}</dt><dd>{escape(run.source)}</dd>"
        for run in comparison.runs
    )
    measured = f"<h3>What was measured</h3><dl>{sources}</dl>"
    return f'<section class="protocol"><h2>Protocol</h2><dl>{items}</dl>{measured}</section>'
