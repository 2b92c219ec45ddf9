"""The plots of a comparison: each is a function that draws a figure, or returns None where there is nothing to draw."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lit_generative.report.columns import Column, distance, distance_column, quality_columns, speed_column
from lit_generative.report.results import Comparison, Point, Run
from lit_generative.report.statistics import Number
from lit_generative.report.theme import REAL_IMAGES, Theme, legend_columns, log_axis

__all__ = ["PLOTS", "Plot"]


@dataclasses.dataclass(frozen=True)
class Plot:
    """A kind of plot.

    Attributes:
        name: Its file's name.
        title: What it is about.
        caption: How to read it.
        draw: Returns the figure; None where the numbers for it are missing.
        absent: Why there is none.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Comparison, Theme], Figure | None]
    absent: str


def trilemma(comparison: Comparison, theme: Theme) -> Figure | None:
    """Draw quality, diversity and speed as three upright axes, up being better, with a line for each model."""
    groups = comparison.by_name()
    recall = next(column for column in quality_columns(comparison) if column.title == "Recall")
    kinds = {"quality": distance_column(comparison), "diversity": recall, "speed": speed_column()}
    found = {kind: _finite(column, groups) for kind, column in kinds.items()}
    names = [name for name in groups if sum(name in numbers for numbers in found.values()) > 1]
    if not names or not all(found.values()):
        return None
    legend_rows = -(-(len(names) + 1) // legend_columns([*names, REAL_IMAGES]))
    height = 4.2 + 0.26 * legend_rows  # inches
    figure = theme.figure(height)
    figure.set_layout_engine("none")
    theme.legend(figure, names)
    scales = [figure.add_axes((left, 0.5 / height, 0.001, 2.9 / height)) for left in (0.15, 0.5, 0.85)]
    for axes, (kind, column) in zip(scales, kinds.items(), strict=True):
        _scale(axes, kind, column, found[kind], column.floor(comparison), theme)
    for name in names:
        ends = [
            figure.transFigure.inverted().transform(axes.transData.transform((0.5, found[kind][name].mean)))
            for axes, kind in zip(scales, kinds, strict=True)
            if name in found[kind]
        ]
        xs, ys = zip(*ends, strict=True)
        figure.add_artist(Line2D(xs, ys, **theme.line(name)))
    return figure


def _scale(
    axes: Axes, kind: str, column: Column, numbers: dict[str, Number], floor: float | None, theme: Theme
) -> None:
    """Make one upright axis of the trilemma, with the spread of each model and the place of real images."""
    theme.dress(axes).grid(False)
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for name, number in numbers.items():
        axes.errorbar(0.5, number.mean, yerr=number.spread, color=theme.colours[name], linewidth=6, alpha=0.4)
    if floor is not None and floor > 0:
        axes.plot([0.5, 50], [floor, floor], **theme.real_line, clip_on=False)
    axes.set_xlim(0, 1)
    if kind == "diversity":
        axes.set_ylim(0, 1)
    else:
        log_axis(axes, "y")
    if kind == "quality":
        axes.invert_yaxis()
    if kind == "speed":
        axes.yaxis.tick_right()  # where no line crosses the numbers
    axes.set_title(f"{kind}\n({column.title})", color=theme.palette.ink, fontsize=12.5, pad=12)
    axes.set_xlabel("up is better" if kind == "diversity" else "", labelpad=12)


def _finite(column: Column, groups: dict[str, list[Run]]) -> dict[str, Number]:
    numbers = {name: column.number(runs) for name, runs in groups.items()}
    return {name: number for name, number in numbers.items() if number is not None and isfinite(number.mean)}


def sampling_time(comparison: Comparison, theme: Theme) -> Figure | None:
    """Draw quality against the time that a sample takes: a curve over the network evaluations, or one point."""
    curves = {name: _curve(runs) for name, runs in comparison.by_name().items()}
    curves = {name: curve for name, curve in curves.items() if curve}
    if not curves:
        return None
    figure = theme.figure(4.5)
    axes = theme.dress(figure.add_subplot())
    for name, curve in curves.items():
        times, distances, evaluations = zip(*curve, strict=True)
        axes.plot(times, distances, **theme.line(name))
        for time, value, count in zip(times, distances, evaluations, strict=True) if len(curve) > 1 else ():
            label = axes.annotate(f"{count}", (time, value), (0, 8), textcoords="offset points", fontsize=11.5)
            label.set_color(theme.palette.ink)
    _distance_axis(axes, comparison, theme)
    axes.set_xlabel("sampling time, ms an image")
    axes.margins(x=0.1)
    log_axis(axes, "x")
    theme.legend(figure, list(curves))
    return figure


def _curve(runs: Sequence[Run]) -> list[tuple[float, float, int | None]]:
    """Return the places of a model: milliseconds an image and quality, means over runs, and network evaluations."""
    places: dict[int | None, list[tuple[float, float]]] = {}
    points: list[Run | Point] = [*runs, *(point for run in runs for point in run.curve)]
    for point in points:
        value = distance(point)
        if point.images_per_second and value is not None and isfinite(value) and value > 0:
            places.setdefault(point.evaluations, []).append((1000 / point.images_per_second, value))
    return sorted(
        (fmean(time for time, _ in found), fmean(value for _, value in found), evaluations)
        for evaluations, found in places.items()
    )


def _distance_axis(axes: Axes, comparison: Comparison, theme: Theme) -> None:
    """Label the upright axis, make it logarithmic, and draw what real images reach."""
    column = distance_column(comparison)
    floor = column.floor(comparison)
    if floor is not None and floor > 0:
        axes.axhline(floor, **theme.real_line)
    axes.margins(y=0.1)
    log_axis(axes, "y")
    axes.set_ylabel(column.heading)


def training_time(comparison: Comparison, theme: Theme) -> Figure | None:
    """Draw quality against the training images and against the minutes of training, a line for each run."""
    kinds = {"training images": lambda point: point.images, "minutes of training": lambda point: point.minutes}
    lines = {kind: list(_histories(comparison.runs, read)) for kind, read in kinds.items()}
    lines = {kind: histories for kind, histories in lines.items() if histories}
    if not lines:
        return None
    figure = theme.figure(0.5 + 3.4 * len(lines))
    for axes, (kind, histories) in zip(figure.subplots(len(lines), squeeze=False)[:, 0], lines.items(), strict=True):
        theme.dress(axes)
        for name, places in histories:
            axes.plot(*zip(*places, strict=True), **theme.line(name))
        _distance_axis(axes, comparison, theme)
        axes.set_xlabel(kind)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    drawn = {name for histories in lines.values() for name, _ in histories}
    theme.legend(figure, [name for name in comparison.by_name() if name in drawn])
    return figure


def _histories(
    runs: Iterable[Run], read: Callable[[Point], float | None]
) -> Iterable[tuple[str, list[tuple[float, float]]]]:
    """Yield the name of each run that has a history, and its places (x, Fréchet distance)."""
    for run in runs:
        points = run.training.history if run.training is not None else []
        places = [(read(point), distance(point)) for point in points]
        known = [(x, y) for x, y in places if x is not None and y is not None and isfinite(y) and y > 0]
        if known:
            yield run.name, known


def spectra(comparison: Comparison, theme: Theme) -> Figure | None:
    """Draw the samples' power at each spatial frequency, and its ratio to that of real images."""
    means = {
        name: np.mean([run.spectrum for run in runs if run.spectrum], axis=0)
        for name, runs in comparison.by_name().items()
        if any(run.spectrum for run in runs)
    }
    if not means or not comparison.spectrum:
        return None
    figure = theme.figure(6.4)
    power, ratio = (theme.dress(axes) for axes in figure.subplots(2, sharex=True))
    real = np.array(comparison.spectrum[1:])  # at 0 are rounding errors: images are taken without their mean
    k = range(1, len(real) + 1)
    for name, mean in means.items():
        for axes, values in ((power, mean[1:]), (ratio, mean[1:] / real)):
            axes.plot(k, values, **theme.line(name) | {"markersize": 5})
    for axes, values in ((power, real), (ratio, np.ones_like(real))):
        axes.plot(k, values, **theme.real_line)
    low, high = ratio.get_ylim()
    ratio.set_ylim(min(low, 0.5), max(high, 2))  # a difference of a few per cent is not to look like a large one
    log_axis(power, "y")
    log_axis(ratio, "y")
    power.set_ylabel("power")
    ratio.set_ylabel("ratio to real images")
    ratio.set_xlabel("spatial frequency, cycles an image")
    theme.legend(figure, list(means))
    return figure


PLOTS = (
    Plot(
        "trilemma",
        "Quality, diversity and speed",
        "The three things that are hard to have at once; up is better on each axis. Bars are the spread, where it "
        "exceeds the marks; dashes are what real images reach.",
        trilemma,
        "quality, diversity and speed were not all measured",
    ),
    Plot(
        "sampling_time",
        "Quality against sampling time",
        "Further to the left is faster, further down is better. A model that samples in steps is a curve, with the "
        "number of network evaluations beside each point.",
        sampling_time,
        "no sampling speed was measured",
    ),
    Plot(
        "training_time",
        "Quality against training",
        "Each line is a run; evaluations during the training are on validation images. Dashes are what real test "
        "images reach.",
        training_time,
        "no model has a history of evaluations during its training",
    ),
    Plot(
        "spectra",
        "Power spectra",
        "Power that is missing at high frequencies is blur; power above that of real images is noise or artefacts.",
        spectra,
        "no spectrum was measured",
    ),
)
