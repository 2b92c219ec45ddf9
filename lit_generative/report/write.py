"""The report of a comparison: from a folder with ``results.json`` to ``report.html``, ``report.md`` and ``plots/``."""

from pathlib import Path

from lit_generative.report.galleries import GALLERIES, Gallery, side_by_side
from lit_generative.report.html import html_report
from lit_generative.report.markdown import markdown_report
from lit_generative.report.plots import PLOTS
from lit_generative.report.results import Comparison
from lit_generative.report.sections import DrawnPlot, Sections
from lit_generative.report.theme import DARK, LIGHT, Theme, rendered

__all__ = ["write_report"]


def write_report(folder: Path) -> None:
    """Write a report beside the ``results.json`` of a folder; an earlier report is replaced.

    Raises:
        ValueError: If the comparison has no run, or runs that do not belong into one table.
    """
    comparison = Comparison.load(folder / "results.json")
    comparison.check()
    (folder / "plots").mkdir(exist_ok=True)
    for kind in (*PLOTS, *GALLERIES):
        for ending in ("png", "svg"):
            (folder / "plots" / f"{kind.name}.{ending}").unlink(missing_ok=True)
    sections = Sections(comparison, _draw_plots(comparison, folder), _draw_galleries(comparison, folder))
    (folder / "report.md").write_text(markdown_report(sections), encoding="utf-8")
    (folder / "report.html").write_text(html_report(sections), encoding="utf-8")


def _draw_plots(comparison: Comparison, folder: Path) -> list[DrawnPlot]:
    light, dark = (Theme.of(comparison.by_name(), palette) for palette in (LIGHT, DARK))
    drawn = []
    for plot in PLOTS:
        figure, night = plot.draw(comparison, light), plot.draw(comparison, dark)
        if figure is None or night is None:
            continue
        svg = rendered(figure, "svg")
        (folder / "plots" / f"{plot.name}.png").write_bytes(rendered(figure, "png"))
        (folder / "plots" / f"{plot.name}.svg").write_bytes(svg)
        drawn.append(DrawnPlot(plot, svg, rendered(night, "svg")))
    return drawn


def _draw_galleries(comparison: Comparison, folder: Path) -> dict[Gallery, dict[str, Path]]:
    found = {gallery: files for gallery in GALLERIES if (files := gallery.files(comparison, folder))}
    for gallery, files in found.items():
        figure = side_by_side(files)
        for ending in ("png", "svg"):
            (folder / "plots" / f"{gallery.name}.{ending}").write_bytes(rendered(figure, ending))
    return found
