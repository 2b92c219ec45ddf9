import math
import re

import numpy as np
import pytest
from comparisons import PICTURES, STORED, comparison, full_run, run
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from lit_generative.report.galleries import GALLERIES, side_by_side
from lit_generative.report.plots import PLOTS, sampling_time, spectra, training_time, trilemma
from lit_generative.report.results import Comparison, Point
from lit_generative.report.theme import COLOURS, DARK, LIGHT, Theme, rendered


def lines(figure: Figure, colour: str, axes: int = 0) -> list[Line2D]:
    return [line for line in figure.axes[axes].lines if line.get_color() == colour]


def theme(found: Comparison) -> Theme:
    return Theme.of(found.by_name())


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_every_plot_differs_in_its_palette_alone(plot) -> None:
    found = comparison(full_run("vae/$a$"), full_run("gan/b"))
    light, dark = (rendered(plot.draw(found, Theme.of(found.by_name(), palette)), "svg") for palette in (LIGHT, DARK))
    assert light.startswith(b"<?xml")
    assert all(colour.lower().encode() in light for colour in COLOURS[:2])
    for name in ("paper", "ink", "faint"):
        assert getattr(LIGHT, name).encode() in light or name == "faint"  # the trilemma has no grid
        light = light.replace(getattr(LIGHT, name).encode(), getattr(DARK, name).encode())
    assert _without_ids(light) == _without_ids(dark)


def _without_ids(svg: bytes) -> bytes:
    """Without the names of clip paths and markers, which depend on all that is drawn."""
    return re.sub(rb"\b[cmp][0-9a-f]{10}\b", b"", svg)


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_a_plot_without_its_numbers_is_left_out(plot) -> None:
    found = comparison(run("a"), run("b"))
    assert plot.draw(found, theme(found)) is None


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_broken_numbers_do_not_stop_a_plot(plot) -> None:
    bad = [full_run("bad", broken, spectrum=[broken] * 3, curve=[]) for broken in (math.nan, math.inf, 0.0)]
    for one in bad:
        one.training.history[0].metrics["frechet_distance"] = one.metrics["frechet_distance"]
        one.name += f" {one.metrics['frechet_distance']}"
    found = comparison(full_run("good"), *bad)
    assert rendered(plot.draw(found, theme(found)), "png").startswith(b"\x89PNG")


def test_a_model_in_steps_is_a_curve_over_sampling_time_and_another_a_point() -> None:
    vae = full_run("vae", 3.0, curve=[], evaluations=1, images_per_second=1000.0)
    diffusion = full_run("ddpm", 2.0, curve=[Point({"frechet_distance": 5.0}, evaluations=5, images_per_second=500.0)])
    found = comparison(vae, diffusion)
    figure = sampling_time(found, theme(found))
    (point,), (curve,) = (lines(figure, colour) for colour in COLOURS[:2])
    assert list(zip(*point.get_data(), strict=True)) == [(1.0, 3.0)]
    assert list(zip(*curve.get_data(), strict=True)) == [(2.0, 5.0), (10.0, 2.0)]  # ms, distance
    assert [text.get_text() for text in figure.axes[0].texts] == ["5", "30"]


def test_seeds_are_one_point_of_mean_time_and_quality() -> None:
    seeds = [full_run("a", d, curve=[], images_per_second=speed) for d, speed in ((1.0, 100.0), (3.0, 50.0))]
    figure = sampling_time(comparison(*seeds), theme(comparison(*seeds)))
    assert list(zip(*lines(figure, COLOURS[0])[0].get_data(), strict=True)) == [(pytest.approx(15.0), 2.0)]


def test_each_run_is_a_line_over_images_and_over_minutes() -> None:
    found = comparison(full_run("a"), full_run("a", seed=1), full_run("b"))
    figure = training_time(found, theme(found))
    assert len(figure.axes) == 2
    assert [len(lines(figure, colour, axes)) for axes in (0, 1) for colour in COLOURS[:2]] == [2, 1, 2, 1]
    assert lines(figure, COLOURS[1], 0)[0].get_xdata().tolist() == [1000, 2000]
    assert lines(figure, COLOURS[1], 1)[0].get_xdata().tolist() == [0.1, 0.2]
    for point in (point for one in found.runs for point in one.training.history):
        point.minutes = None
    assert len(training_time(found, theme(found)).axes) == 1


def test_spectra_have_their_ratio_to_the_real_one_below() -> None:
    found = comparison(full_run("a"), full_run("a", spectrum=[110.0, 11.0, 1.5]))
    power, ratio = (lines(spectra(found, theme(found)), COLOURS[0], axes)[0] for axes in (0, 1))
    assert list(power.get_xdata()) == list(ratio.get_xdata()) == [1, 2]
    assert np.allclose(power.get_ydata(), [10.0, 1.0])
    assert np.allclose(ratio.get_ydata(), [1.0, 1.0])


def test_what_rounding_leaves_at_frequency_0_does_not_spoil_the_axis_of_the_spectra() -> None:
    found = comparison(full_run("a", spectrum=[1e-30, 10.0, 1.0]))
    found.spectrum[0] = 1e-30
    assert spectra(found, theme(found)).axes[0].get_ylim()[0] > 0.1


def test_up_is_better_on_each_axis_of_the_trilemma() -> None:
    good = full_run("good", 1.0, metrics={"frechet_distance": 1.0, "recall": 0.8}, images_per_second=1000.0)
    bad = full_run("bad", 9.0, metrics={"frechet_distance": 9.0, "recall": 0.2}, images_per_second=10.0)
    found = comparison(bad, good)
    low, high = (artist.get_ydata() for artist in trilemma(found, theme(found)).artists)
    assert all(y < other for y, other in zip(low, high, strict=True))


def test_models_keep_their_colour_and_more_models_than_colours_differ_in_their_marker() -> None:
    names = [f"model {i}" for i in range(20)]
    light, dark = Theme.of(names), Theme.of(names, DARK)
    assert light.colours == dark.colours
    assert len({(light.colours[name], light.markers[name]) for name in names}) == 20


def test_a_gallery_shows_the_very_pictures_of_first_runs_after_those_of_real_images() -> None:
    other = {"samples": "pictures/tiny-gan-0-samples.png"}
    found = comparison(full_run("a"), full_run("b", pictures=other), full_run("a", seed=1, pictures=other))
    found.pictures = {"samples": "pictures/real-samples.png"}
    samples, nearest = (gallery.files(found, STORED) for gallery in GALLERIES)
    assert samples["a"] == STORED / PICTURES["samples"]
    assert list(samples) == ["real images", "a", "b"]
    assert list(nearest) == ["a"]
    axes = side_by_side(samples).axes
    assert [one.get_title() for one in axes] == list(samples)
    for one, path in zip(axes, samples.values(), strict=True):
        assert np.array_equal(one.images[0].get_array(), np.asarray(Image.open(path)))
