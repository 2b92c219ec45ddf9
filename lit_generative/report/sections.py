"""What a report says and shows, before it is HTML or Markdown."""

import dataclasses
from functools import cached_property
from pathlib import Path

from lit_generative.report.equal_minutes import unequal_minutes
from lit_generative.report.findings import Finding, findings
from lit_generative.report.galleries import GALLERIES, Gallery
from lit_generative.report.plots import PLOTS, Plot
from lit_generative.report.results import Comparison
from lit_generative.report.summary import Table, summarise

__all__ = ["DrawnPlot", "Sections"]


@dataclasses.dataclass(frozen=True)
class DrawnPlot:
    """A plot as SVG files, for light and for dark surroundings."""

    plot: Plot
    light: bytes
    dark: bytes


@dataclasses.dataclass(frozen=True)
class Sections:
    """All sections of a report on a comparison.

    Attributes:
        comparison: What the report is about.
        plots: Those that there are numbers for.
        galleries: PNG files by the models' names.
    """

    comparison: Comparison
    plots: list[DrawnPlot] = dataclasses.field(default_factory=list)
    galleries: dict[Gallery, dict[str, Path]] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """The heading of the whole."""
        return f"Comparison of {', '.join(self.comparison.by_name())}"

    @cached_property
    def findings(self) -> list[Finding]:
        """What the numbers say."""
        return findings(self.comparison)

    @cached_property
    def tables(self) -> list[Table]:
        """The numbers."""
        return summarise(self.comparison)

    @property
    def warnings(self) -> list[str]:
        """Each warning once, with the names of the models that it concerns unless it concerns all."""
        groups = self.comparison.by_name()
        concerned: dict[str, dict[str, None]] = {}
        for run in self.comparison.runs:
            for warning in run.warnings:
                concerned.setdefault(warning, {})[run.name] = None
        of_all = unequal_minutes(self.comparison)
        return [of_all] * bool(of_all) + [
            warning if len(names) == len(groups) > 1 else f"{', '.join(names)}: {warning}"
            for warning, names in concerned.items()
        ]

    @property
    def absent(self) -> list[str]:
        """A sentence on each plot or gallery that is left out."""
        shown = {drawn.plot for drawn in self.plots} | self.galleries.keys()
        kinds: tuple[Plot | Gallery, ...] = (*PLOTS, *GALLERIES)
        return [f"{kind.title}: left out, because {kind.absent}." for kind in kinds if kind not in shown]

    @property
    def protocol(self) -> dict[str, str]:
        """How the runs were measured, as text by name; where models differ, the text says it of each."""
        found: dict[str, str] = {}
        stamps = {name: runs[0].protocol for name, runs in self.comparison.by_name().items()}
        for key in dict.fromkeys(key for stamp in stamps.values() for key in stamp):
            if key in ("floor", "floor_spread", "classes"):  # the tables' first row
                continue
            values = {name: _in_words(stamp.get(key)) for name, stamp in stamps.items()}
            if len(set(values.values())) == 1:
                found[key] = next(iter(values.values()))
            else:
                found[key] = "; ".join(f"{name}: {value}" for name, value in values.items())
        return found


def _in_words(value: object) -> str:
    """Return plain data as a text without quotes and braces; of an object's description its class and arguments."""
    if isinstance(value, dict) and "class_path" in value:
        return f"{value['class_path'].rpartition('.')[2]}({_in_words(value.get('init_args') or {})})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_in_words(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " × ".join(map(_in_words, value))
    return "none" if value is None else str(value)
