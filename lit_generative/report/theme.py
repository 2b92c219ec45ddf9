"""How plots look: one colour and marker for each model in all of them, a light and a dark palette, PNG and SVG."""

import dataclasses
import io
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

__all__ = [
    "DARK",
    "LIGHT",
    "REAL_IMAGES",
    "WIDTH",
    "Palette",
    "Theme",
    "legend_columns",
    "log_axis",
    "plain",
    "rendered",
]

REAL_IMAGES = "real images"
WIDTH = 6.0  # inches; at 96 pixels an inch two fit beside each other, and one is legible on a phone

# Okabe & Ito's palette, which the colour-blind can tell apart, without yellow and black, and one grey
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")  # one more than colours: repeated colours differ in their marker


@dataclasses.dataclass(frozen=True)
class Palette:
    """The colours of everything but the models."""

    ink: str
    faint: str
    paper: str


LIGHT = Palette(ink="#1f2328", faint="#d8dce1", paper="#ffffff")
DARK = Palette(ink="#e6e8eb", faint="#3a4048", paper="#1b1f24")


@dataclasses.dataclass(frozen=True)
class Theme:
    """A palette, and each model's colour and marker by its name."""

    palette: Palette
    colours: dict[str, str]
    markers: dict[str, str]

    @classmethod
    def of(cls, names: Iterable[str], palette: Palette = LIGHT) -> "Theme":
        """Give colours and markers in the order of the names."""
        names = list(names)
        colours = dict(zip(names, cycle(COLOURS), strict=False))
        return cls(palette, colours, dict(zip(names, cycle(MARKERS), strict=False)))

    def figure(self, height: float) -> Figure:
        """Return an empty figure of the common width; it belongs to no window and to no global state."""
        figure = Figure(figsize=(WIDTH, height), facecolor=self.palette.paper, layout="constrained")
        FigureCanvasAgg(figure)
        return figure

    def dress(self, axes: Axes) -> Axes:
        """Give axes the palette's colours, and lines to read values by."""
        axes.set_facecolor(self.palette.paper)
        axes.grid(True, color=self.palette.faint, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(which="both", colors=self.palette.ink, labelsize=12, length=3)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(self.palette.ink)
        for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
            label.set_color(self.palette.ink)
            label.set_fontsize(12.5)
        return axes

    def legend(self, figure: Figure, names: Sequence[str]) -> None:
        """Put a legend above the axes: of models, and of real images."""
        handles = [Line2D([], [], **self.line(name), label=plain(name)) for name in names]
        handles.append(Line2D([], [], **self.real_line, label=REAL_IMAGES))
        columns = legend_columns([*names, REAL_IMAGES])
        in_rows = [handle for column in range(columns) for handle in handles[column::columns]]  # it fills columns first
        figure.legend(
            handles=in_rows, loc="outside upper left", ncols=columns, frameon=False, fontsize=12,
            labelcolor=self.palette.ink, handlelength=1.6, columnspacing=1.2,
        )  # fmt: skip

    def line(self, name: str) -> dict[str, Any]:
        """Return how a model's line is drawn; markers have an edge, so that one on another is seen."""
        return {
            "color": self.colours[name],
            "marker": self.markers[name],
            "linewidth": 1.8,
            "markersize": 7.5,
            "markeredgecolor": self.palette.paper,
            "markeredgewidth": 0.8,
        }

    @property
    def real_line(self) -> dict[str, Any]:
        """Return how what real images reach is drawn."""
        return {"color": self.palette.ink, "linestyle": "--", "linewidth": 1.3}


def legend_columns(labels: Sequence[str]) -> int:
    """Return how many entries of a legend fit beside each other."""
    return max(1, min(4, 72 // (7 + max(map(len, labels)))))


def plain(text: str) -> str:
    """Return a name as text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def log_axis(axes: Axes, which: str) -> None:
    """Make the axis ``which`` ("x" or "y") logarithmic, with plain numbers."""
    axis = getattr(axes, f"{which}axis")
    getattr(axes, f"set_{which}scale")("log")
    low, high = getattr(axes, f"get_{which}lim")()
    span = max(low, high) / min(low, high)
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7) if span < 20 else (1, 2, 5) if span < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def rendered(figure: Figure, kind: str, dpi: int = 160) -> bytes:
    """Return the figure as a file of ``kind`` ("png" or "svg"), the same bytes for the same figure."""
    target = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "lit_generative"}):
        figure.savefig(target, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
    return target.getvalue()
