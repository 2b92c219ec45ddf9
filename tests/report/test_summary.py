import math

import pytest
from comparisons import comparison, full_run, run

from lit_generative.report.findings import findings
from lit_generative.report.results import Comparison, Point, Run, Training
from lit_generative.report.statistics import HIGHER, LOWER, NEAR_ONE, Number, leader
from lit_generative.report.summary import FLOOR, Cell, stability, summarise


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


# 2 sqrt(0.3^2 + 0.4^2) = 1
@pytest.mark.parametrize(("lead", "is_bold"), [(0.99, False), (1.01, True)])
def test_the_best_is_bold_only_beyond_the_spread_of_both(lead: float, is_bold: bool) -> None:
    found = comparison(run("vae/a", 2.0, 0.3), run("gan/b", 2.0 + lead, 0.4))
    assert cell(found, "vae/a", "Fréchet distance").is_best == is_bold
    assert not cell(found, "gan/b", "Fréchet distance").is_best
    sentence = finding(found, "Quality")
    assert ("best is vae/a" in sentence) == is_bold
    assert ("no difference that exceeds the spread between vae/a" in sentence) != is_bold
    assert sentence.endswith("Real images reach 0.2.")


def test_the_best_must_lead_every_other_model() -> None:
    a, b, uncertain = run("a", 1.0, 0.1), run("b", 3.0, 0.1), run("c", 5.0, 3.0)
    assert cell(comparison(a, b), "a", "Fréchet").is_best
    assert not cell(comparison(a, b, uncertain), "a", "Fréchet").is_best
    expected = "spread between a 1.00 ± 0.10 and c 5.0 ± 3.0, before b 3.00 ± 0.10."
    assert expected in finding(comparison(a, b, uncertain), "Quality")


def test_without_a_spread_or_a_rival_nothing_is_bold() -> None:
    assert not cell(comparison(run("a", 1.0, None), run("b", 9.0, 0.1)), "a", "Fréchet").is_best
    assert not cell(comparison(run("a", 1.0, 0.1), run("b", 9.0, None)), "a", "Fréchet").is_best
    assert not cell(comparison(run("a", 1.0, 0.1)), "a", "Fréchet").is_best


@pytest.mark.parametrize(("better", "best"), [(LOWER, "low"), (HIGHER, "high"), (NEAR_ONE, "one")])
def test_each_column_has_its_direction(better: object, best: str) -> None:
    numbers = {"low": 0.2, "one": 1.1, "high": 1.9}
    assert leader({name: Number(mean, 0.01, margin=0.01) for name, mean in numbers.items()}, better) == best  # type: ignore[arg-type]


def test_seeds_give_a_standard_deviation_and_a_single_run_its_jackknife_error() -> None:
    seeds = [run("a", distance, 0.1, seed=seed) for seed, distance in enumerate((1.0, 2.0, 3.0))]
    found = comparison(*seeds, run("b", 5.0, 0.25))
    assert cell(found, "a", "Fréchet").text == "2.0 ± 1.0"
    assert cell(found, "b", "Fréchet").text == "5.00 ± 0.25†"
    assert [row.runs for row in summarise(found)[0].rows] == ["", "3 seeds", "1 run"]


def test_seeds_that_agree_by_luck_are_no_more_certain_than_their_samples() -> None:
    number = Number.of([2.0, 2.001], [0.3, 0.4])
    assert number.spread == pytest.approx(math.sqrt((0.09 + 0.16) / 2))
    assert str(number) == "2.00 ± 0.35†"


def test_a_speed_counts_as_known_to_a_tenth() -> None:
    def bold(other: float) -> bool:
        runs = run("a", images_per_second=1000.0), run("b", images_per_second=other)
        return cell(comparison(*runs), "a", "Samples/s").is_best

    assert not bold(780.0)  # 220 < 2 sqrt(100^2 + 78^2) = 254
    assert bold(700.0)  # 300 > 2 sqrt(100^2 + 70^2) = 244


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
    found = comparison(run("a", math.nan), run("a", 1.0), run("b", math.inf), run("c", 3.0, 0.1))
    assert cell(found, "a", "Fréchet").text == "not finite"
    assert cell(found, "b", "Fréchet").text == "not finite"
    assert cell(found, "c", "Fréchet").is_best
    assert "best is c 3.00 ± 0.10, before" in finding(found, "Quality")


def test_real_images_come_first_and_have_no_cost() -> None:
    quality, images, cost, stable = summarise(comparison(full_run("a")))
    assert [table.rows[0].name for table in (quality, images, cost, stable)] == [FLOOR, FLOOR, "a", "a"]
    assert [c.text for c in quality.rows[0].cells[:4]] == ["0.2", "–", "–", "0.83"]
    assert images.rows[0].cells[-2].text == "0.003"


def test_a_distance_is_called_fid_in_inceptions_features_alone() -> None:
    inception = run("a", metrics={"fid": 20.0, "kid": 0.1})
    assert summarise(comparison(inception))[0].headings[:2] == ["FID ↓", "KID ↓"]
    assert summarise(comparison(run("a")))[0].headings[:2] == ["Fréchet distance ↓", "Kernel distance ↓"]


def test_missing_classes_have_their_names() -> None:
    def one(missing: list[str]) -> Run:
        return run("a", metrics={"missing_classes": float(len(missing))}, missing=missing)

    found = comparison(one(["bag", "coat"]), one(["bag"]))
    assert cell(found, "a", "Missing classes") == Cell("1.50 ± 0.71", "bag, coat (1 of 2)", False)
    assert finding(found, "Missing classes") == "a does not draw bag and coat."


def test_class_accuracy_has_a_column_only_where_a_model_has_one() -> None:
    conditional = run("a", metrics={"frechet_distance": 1.0, "class_accuracy": 0.9})
    assert "Class accuracy ↑" in summarise(comparison(conditional, run("b")))[0].headings
    assert "Class accuracy ↑" not in summarise(comparison(run("b")))[0].headings


@pytest.mark.parametrize(
    ("training", "verdict"),
    [
        (history(4.0, 2.0, 2.4), "stable"),
        (history(4.0, 2.0, 2.6), "got worse after its best"),
        (history(4.0, 2.0, is_finite=False), "a loss was not finite"),
        (history(4.0, 2.0, verdict="mode collapse"), "mode collapse"),
        (history(4.0, 2.0, 2.6, verdict="diverged"), "diverged; got worse after its best"),
        (history(verdict="healthy"), "stable"),
        (history(4.0), "not measured"),
        (None, "not measured"),
    ],
)
def test_stability_of_a_run(training: Training | None, verdict: str) -> None:
    assert stability([run(training=training)]) == verdict


def test_stability_of_seeds() -> None:
    bad, good = history(2.0, 3.0), history(2.0, 1.0)
    assert stability([run(training=bad), run(training=good)]) == "got worse after its best (1 of 2 seeds)"
    # standard deviation 1.414 of a mean of 2
    assert stability([run(distance=1.0), run(distance=3.0)]) == "seeds differ by 71% of their mean"
    assert stability([run(distance=2.0), run(distance=2.1)]) == "stable"


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
    assert "no difference that exceeds the spread between a" in finding(calm, "Likelihood")
