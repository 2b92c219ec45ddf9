import math

import numpy as np
import pytest
from comparisons import comparison, full_run, run, seeds

from lit_generative.report.findings import findings
from lit_generative.report.results import Comparison, Point, Run, Training
from lit_generative.report.statistics import Number
from lit_generative.report.summary import FLOOR, ONE_TRAINING, Cell, stability, summarise


def cell(found: Comparison, name: str, heading: str) -> Cell:
    """The cell of a model in whichever table has a column that starts so."""
    for table in summarise(found):
        for i, title in enumerate(table.headings):
            if title.startswith(heading):
                return next(row.cells[i] for row in table.rows if row.name == name)
    raise AssertionError(f"no column {heading}")


def finding(found: Comparison, title: str) -> str:
    return next(item.text for item in findings(found) if item.title == title)


def history(*values: float, **changes: object) -> Training:
    points = [Point({"frechet_distance": value}, images=n) for n, value in enumerate(values)]
    return Training(1000, history=points, **changes)  # type: ignore[arg-type]


def test_seeds_give_a_standard_deviation_and_a_single_run_its_jackknife_error() -> None:
    found = comparison(*seeds("a", 1.0, 2.0, 3.0), run("b", 5.0, 0.25), run("c", family="images"))
    # Student's t of 0.975 with two degrees of freedom is 4.303
    assert cell(found, "a", "Fréchet") == Cell("2.0 ± 1.0", "-0.5 to 4.5")
    assert cell(found, "b", "Fréchet") == Cell("5.00 ± 0.25†")
    assert [row.runs for row in summarise(found)[0].rows] == ["", "3 seeds", ONE_TRAINING, "given images"]


def test_seeds_that_agree_by_luck_are_no_more_certain_than_their_samples() -> None:
    number = Number.of([2.0, 2.001], [0.3, 0.4])
    assert number.spread == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert str(number) == "2.00 ± 0.35†"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (Number(1234567.0), "1,234,567"),
        (Number(0.123456), "0.123"),
        (Number(12.3456, 0.0567), "12.346 ± 0.057"),
        (Number(12345.6, 321.0), "12,346 ± 321"),
        (Number(2.0, 0.0), "2"),
        (Number(1.0, 1e-12), "1.000000 ± 0.000000"),
        (Number(math.nan), "not finite"),
    ],
)
def test_a_number_has_the_digits_that_its_spread_leaves_it(number: Number, text: str) -> None:
    assert str(number) == text


def test_what_is_not_there_is_said() -> None:
    gan = run("gan/b", family="GAN")
    vae = run("vae/a", likelihood={"bound": (3.0, 0.01)})
    found = comparison(vae, gan, run("c", likelihood={"flow": (2.9, 0.01)}))
    assert cell(found, "gan/b", "-log p (bound)").text == "not defined"
    assert cell(found, "c", "-log p (bound)").text == "not measured"
    for heading in ("Density", "Sharpness", "Memorised", "Parameters", "Samples/s", "Training images", "Verdict"):
        assert cell(found, "gan/b", heading).text == "not measured", heading
    assert cell(comparison(gan), "gan/b", "-log p").text == "not defined"
    assert finding(found, "Speed") == "Samples/s was not measured."


def test_a_number_of_some_runs_says_of_how_many() -> None:
    found = comparison(run("a", images_per_second=100.0), run("a", seed=1))
    assert cell(found, "a", "Samples/s").text == "100 (1 of 2 runs)"


def test_broken_numbers_are_named_and_lose() -> None:
    found = comparison(run("a", math.nan), run("a", 1.0), run("b", math.inf), *seeds("c", 2.9, 3.0, 3.1))
    assert cell(found, "a", "Fréchet").text == "not finite"
    assert cell(found, "b", "Fréchet").text == "not finite"
    assert cell(found, "c", "Fréchet").is_best
    assert "best is c 3.00 ± 0.10, before" in finding(found, "Quality")


def test_real_images_have_a_spread() -> None:
    found = comparison(run("a"))
    found.floor_spread = {"frechet_distance": 0.012}
    assert cell(found, FLOOR, "Fréchet").text == "0.200 ± 0.012"


def test_real_images_come_first_and_have_no_cost() -> None:
    quality, images, cost, stable = summarise(comparison(full_run("a")))
    assert [table.rows[0].name for table in (quality, images, cost, stable)] == [FLOOR, FLOOR, "a", "a"]
    assert [c.text for c in quality.rows[0].cells[:4]] == ["0.2", "–", "–", "0.83"]
    assert dict(zip(images.headings, images.rows[0].cells, strict=True))["Memorised share"].text == "0.003"


def test_a_distance_is_called_fid_in_inceptions_features_alone() -> None:
    inception = run("a", metrics={"fid": 20.0, "kid": 0.1})
    assert summarise(comparison(inception))[0].headings[:2] == ["FID ↓", "KID ↓"]
    assert summarise(comparison(run("a")))[0].headings[:2] == ["Fréchet distance ↓", "Kernel distance ↓"]


def test_missing_classes_have_their_names() -> None:
    def one(missing: list[str]) -> Run:
        return run("a", metrics={"missing_classes": float(len(missing))}, missing=missing)

    found = comparison(one(["bag", "coat"]), one(["bag"]))
    assert cell(found, "a", "Missing classes") == Cell("1.50 ± 0.71", "-4.85 to 7.85; bag, coat (1 of 2)")
    assert finding(found, "Missing classes") == "a does not draw bag and coat."


def test_class_accuracy_has_a_column_only_where_a_model_has_one() -> None:
    conditional = run("a", metrics={"frechet_distance": 1.0, "class_accuracy": 0.9})
    assert "Class accuracy ↑" in summarise(comparison(conditional, run("b")))[0].headings
    assert "Class accuracy ↑" not in summarise(comparison(run("b")))[0].headings


@pytest.mark.parametrize(
    ("training", "verdict"),
    [
        (history(4.0, 2.0, 2.7), "stable"),
        (history(4.0, 2.0, 2.9), "got worse after its best"),
        (history(4.0, 2.0, is_finite=False), "a loss was not finite"),
        (history(4.0, 2.0, verdict="mode collapse"), "mode collapse"),
        (history(4.0, 2.0, 2.9, verdict="diverged"), "diverged; got worse after its best"),
        (history(verdict="healthy"), "stable"),
        (history(4.0), "not measured"),
        (None, "not measured"),
    ],
)
def test_stability_of_a_run(training: Training | None, verdict: str) -> None:
    assert stability([run(training=training)]) == verdict


def test_chance_is_not_called_worse_than_the_best() -> None:
    """A perfect model's distances are the floor's, and a good one's fluctuate by a tenth."""
    draw = np.random.default_rng(0)
    floor = {"protocol": {"floor": {"frechet_distance": 0.003}, "floor_spread": {"frechet_distance": 0.002}}}
    for count in (4, 12):
        perfect = [history(*(0.0015 * draw.gamma(2.0, size=count))) for _ in range(200)]
        good = [history(*(2 * np.exp(0.1 * draw.standard_normal(count)))) for _ in range(200)]
        worse = [history(*np.linspace(4, 2, count), *(4.5 * np.exp(0.1 * draw.standard_normal(3)))) for _ in range(200)]
        said = [sum(stability([run(training=one, **floor)]) != "stable" for one in kind) for kind in (perfect, good)]
        assert max(said) <= 20, said  # of 200
        assert sum(stability([run(training=one, **floor)]) != "stable" for one in worse) >= 190


def test_stability_of_seeds() -> None:
    bad, good = history(2.0, 3.0), history(2.0, 1.0)
    assert stability([run(training=bad), run(training=good)]) == "got worse after its best (1 of 2 seeds)"
    # standard deviation 1.414 of a mean of 2
    assert stability([run(distance=1.0), run(distance=3.0)]) == "seeds differ by 71% of their mean"
    assert stability([run(distance=2.0), run(distance=2.1)]) == "stable"
    assert stability([run(metrics={}), run(metrics={})]) == "not measured"
    assert stability([run(metrics={}), run(distance=2.1)]) == "not measured"


def test_what_is_remarkable_is_said() -> None:
    metrics = {"blurred": {"sharpness": 0.3}, "noisy": {"sharpness": 2.0}, "copies": {"memorised": 0.97}}
    found = comparison(*(full_run(name, metrics=values) for name, values in metrics.items()))
    assert "blurred is blurred: at high spatial frequencies it has 0.30" in finding(found, "Sharpness")
    assert "noisy is noisy: at high spatial frequencies it has 2.00" in finding(found, "Sharpness")
    assert "copies (97% of its samples)" in finding(found, "Memorisation")
    calm = comparison(full_run("a"), full_run("b"))
    assert finding(calm, "Sharpness") == "All models' samples are about as sharp as real images."
    assert finding(calm, "Memorisation") == "No model draws copies of training images to speak of."
    assert finding(calm, "Stability") == "Training was stable for a and b."
    assert "one training: differences are not tested; a" in finding(calm, "Likelihood")
