"""The report of a comparison, as a folder: ``report.html``, ``report.md``, ``results.json`` and ``plots/``."""

from pathlib import Path

from lit_generative.report.html import html_report
from lit_generative.report.images import GRIDS, Pictures, png
from lit_generative.report.markdown import markdown_report
from lit_generative.report.plots import PLOTS
from lit_generative.report.results import Comparison
from lit_generative.report.sections import Gallery, Illustration, Parts
from lit_generative.report.theme import DARK, LIGHT, Look, rendered

__all__ = ["Pictures", "write_report"]


def write_report(comparison: Comparison, pictures: dict[str, Pictures], folder: Path) -> None:
    """Write everything that there is to say about a comparison; what is there of an earlier report is replaced.

    Args:
        comparison: What was measured.
        pictures: By the models' names, and "real images" for the row of the floor; models without any are left out.
        folder: Where to; it is made.

    Raises:
        ValueError: If the comparison has no run.
    """
    if not comparison.runs:
        raise ValueError("comparison has no runs; measure at least one model before a report is written")
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    parts = _draw(comparison, pictures, folder / "plots")
    comparison.save(folder / "results.json")
    (folder / "report.md").write_text(markdown_report(comparison, parts), encoding="utf-8")
    (folder / "report.html").write_text(html_report(comparison, parts), encoding="utf-8")


def _draw(comparison: Comparison, pictures: dict[str, Pictures], folder: Path) -> Parts:
    """Write all plots, and return what the texts show of them."""
    for kind in (*PLOTS, *GRIDS):
        for stale in (folder / f"{kind.name}.png", folder / f"{kind.name}.svg"):
            stale.unlink(missing_ok=True)
    light, dark = (Look.of(comparison.by_name(), theme) for theme in (LIGHT, DARK))
    parts = Parts()
    for plot in PLOTS:
        figure, night = plot.draw(comparison, light), plot.draw(comparison, dark)
        if figure is None or night is None:
            parts.absent.append(f"{plot.title}: left out, because {plot.absent}.")
            continue
        (folder / f"{plot.name}.png").write_bytes(rendered(figure, "png"))
        svg = rendered(figure, "svg")
        (folder / f"{plot.name}.svg").write_bytes(svg)
        parts.plots.append(Illustration(plot.name, plot.title, plot.caption, svg, rendered(night, "svg")))
    for grid in GRIDS:
        made = grid.pictures(pictures)
        if (together := grid.figure(pictures)) is None:
            parts.absent.append(f"{grid.title}: left out, because {grid.absent}.")
            continue
        for ending in ("png", "svg"):
            (folder / f"{grid.name}.{ending}").write_bytes(rendered(together, ending))
        images = {name: png(image) for name, image in made.items()}
        parts.galleries.append(Gallery(grid.name, grid.title, grid.caption, images))
    return parts
