"""Who is called best: never by chance, never a copier, never what is better than real images."""

import numpy as np
import pytest
from comparisons import comparison, full_run, run, seeds

from lit_generative.report.findings import findings
from lit_generative.report.ranking import rank
from lit_generative.report.results import Comparison, Point, Run, Training
from lit_generative.report.statistics import HIGHER, LOWER, NEAR_ONE, Number, holm
from lit_generative.report.summary import summarise

DISTANCE = "Fréchet distance"
METRICS = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "sharpness", "nearest")


def bold(found: Comparison) -> dict[str, str]:
    """The best model of each column that has one, as the tables show it."""
    return {
        heading.split(" ↑")[0].split(" ↓")[0].split(" →")[0]: row.name
        for table in summarise(found)
        for row in table.rows
        for heading, cell in zip(table.headings, row.cells, strict=True)
        if cell.is_best
    }


def finding(found: Comparison, title: str) -> str:
    return next(item.text for item in findings(found) if item.title == title)


def like(name: str, seed: int, draw: np.random.Generator, spread: float) -> Run:
    """A training whose every number differs from all others' by chance alone, and its samples' errors are a third."""
    values = dict(zip(METRICS, 1.5 + spread * draw.standard_normal(len(METRICS)), strict=True))
    likelihood = {"bound": (3 + spread * draw.standard_normal(), 0.001)}
    history = [Point({"frechet_distance": 2.0 + spread * draw.standard_normal()}, images=n) for n in range(2)]
    errors = dict.fromkeys(METRICS, spread / 3)
    training = Training(1000, history=history)
    changes = {"errors": errors, "likelihood": likelihood, "seed": seed, "training": training}
    return run(name, metrics=values, **changes)


@pytest.mark.parametrize("spreads", [(0.1, 0.1), (0.1, 0.01), (0.1, 0.1, 0.1)], ids=["two", "unlike", "three"])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_chance_makes_no_more_than_one_report_in_twenty_have_a_bold_number(count: int, spreads: tuple) -> None:
    draw = np.random.default_rng(count)
    tables, false = 150, 0
    for _ in range(tables):
        runs = [like(f"{i}", seed, draw, s) for i, s in enumerate(spreads) for seed in range(count)]
        found = comparison(*runs)
        found.floor = {}
        false += any(ranking.best for ranking in rank(found).values())
    assert false <= 0.05 * tables
    assert count > 1 or false == 0


def test_a_difference_that_seeds_confirm_is_bold() -> None:
    found = comparison(*seeds("a", 1.0, 1.05, 1.1), *seeds("b", 3.0, 3.1, 2.9), *seeds("c", 4.0, 4.1, 4.2))
    assert bold(found) == {DISTANCE: "a"}
    assert "best is a 1.050 ± 0.050, before b 3.00 ± 0.10 and c 4.10 ± 0.10" in finding(found, "Quality")


def test_one_training_is_not_tested_however_large_the_difference() -> None:
    for others in ([run("b", 90.0)], seeds("b", 90.0, 90.1, 90.2)):
        found = comparison(run("a", 1.0, 0.01), *others)
        assert not bold(found)
        assert "one training: differences are not tested; a 1.000 ± 0.010 and b" in finding(found, "Quality")


def test_the_best_must_lead_every_other_model() -> None:
    two = comparison(*seeds("a", 1.0, 1.05, 1.1), *seeds("b", 3.0, 3.1, 2.9))
    assert bold(two) == {DISTANCE: "a"}
    three = comparison(*two.runs, *seeds("c", 2.0, 5.0, 9.0))
    assert not bold(three)
    assert "no difference beyond chance between a 1.050 ± 0.050 and c" in finding(three, "Quality")


@pytest.mark.parametrize(("better", "best"), [(LOWER, "low"), (HIGHER, "high"), (NEAR_ONE, "one")])
def test_each_column_has_its_direction(better: object, best: str) -> None:
    numbers = {"low": [0.2, 0.21], "one": [1.1, 1.11], "high": [1.9, 1.91]}
    found = {name: Number.of(values, [None, None]) for name, values in numbers.items()}
    for name, number in found.items():
        chances = [number.chance(other, better) for key, other in found.items() if key != name]  # type: ignore[arg-type]
        assert (max(filter(None, chances)) < 0.05) == (name == best)


def test_more_columns_ask_for_more() -> None:
    """Of a column alone the lead is beyond chance, but not of one among many."""
    one = [*seeds("a", 1.0, 1.1, 1.2), *seeds("b", 2.0, 2.1, 2.2)]
    assert bold(comparison(*one)) == {DISTANCE: "a"}
    same = dict.fromkeys(METRICS[1:], 0.7)
    draw = np.random.default_rng(0)
    many = []
    for found in one:
        noise = {name: value + 0.01 * draw.standard_normal() for name, value in same.items()}
        many.append(run(found.name, metrics=noise | {"frechet_distance": found.metrics["frechet_distance"]}))
    assert not bold(comparison(*many))
    assert "no difference that is sure among so many columns" in finding(comparison(*many), "Quality")


def test_holms_rule() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.02}) == {"a", "b", "c"}
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == {"a"}
    assert holm({"a": 0.02, "b": 0.04, "c": 0.03}) == set()
    assert holm({}) == set()


@pytest.mark.parametrize(
    "copying", [{"memorised": 0.3}, {"memorised_features": 0.2}, {"authenticity": 0.1}], ids=lambda c: next(iter(c))
)
def test_a_copier_is_never_best_nor_a_rival(copying: dict[str, float]) -> None:
    def copier(distance: float) -> list[Run]:
        return [full_run("copier", distance + i / 100, seed=i, errors={}) for i in range(3)]

    honest = [*seeds("a", 1.0, 1.01, 1.02), *seeds("b", 2.0, 2.01, 2.02)]
    thieves = copier(0.3)
    for thief in thieves:
        thief.metrics |= copying
    found = comparison(*honest, *thieves)
    found.floor |= {"authenticity": 0.67}
    assert bold(found) == {DISTANCE: "a"}
    assert "Not ranked, for copies of training images: copier 0.310" in finding(found, "Quality")
    assert "Copies of training images are drawn by copier" in finding(found, "Memorisation")


def test_better_than_real_images_is_not_best() -> None:
    found = comparison(
        *seeds("too good", 0.1, 0.101, 0.102), *seeds("a", 1.0, 1.01, 1.02), *seeds("b", 2.0, 2.01, 2.02)
    )
    assert bold(found) == {DISTANCE: "a"}  # real images reach 0.2
    assert "Better than real images, which is no better model, and not ranked: too good" in finding(found, "Quality")
    alone = comparison(*seeds("too good", 0.1, 0.101, 0.102), *seeds("b", 2.0, 2.01, 2.02))
    assert not bold(alone)
    assert "best is" not in finding(alone, "Quality")


def test_a_speed_counts_as_known_to_a_tenth() -> None:
    def is_bold(other: float) -> bool:
        runs = run("a", images_per_second=1000.0), run("b", images_per_second=other)
        return bold(comparison(*runs)) == {"Samples/s": "a"}

    assert not is_bold(800.0)  # 200 < 1.96 sqrt(100^2 + 80^2) = 251
    assert is_bold(700.0)  # 300 > 1.96 sqrt(100^2 + 70^2) = 239


def test_likelihoods_of_the_same_images_are_compared_image_by_image() -> None:
    """Images differ by bits, models by a hundredth of one: only the differences show it."""
    draw = np.random.default_rng(0)
    difficulty = 3 + draw.standard_normal(200)

    def trained(name: str, shift: float, seed: int, *, is_paired: bool) -> Run:
        bits = difficulty + shift + 0.001 * seed + 0.01 * draw.standard_normal(200)
        likelihood = {"bound": (float(bits.mean()), float(bits.std() / 200**0.5))}
        images = {"bound": bits.tolist()} if is_paired else {}
        return run(name, metrics={}, errors={}, likelihood=likelihood, likelihood_images=images, seed=seed)

    for is_paired in (True, False):
        runs = [trained(n, s, seed, is_paired=is_paired) for n, s in (("a", 0), ("b", 0.1)) for seed in range(3)]
        assert bool(bold(comparison(*runs))) == is_paired


def test_runs_of_other_data_or_extractors_are_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    one, other = run("a"), run("b")
    for key, what in (("data_content", "against other images"), ("extractor_sha256", "by other extractors")):
        one.protocol, other.protocol = {key: "0123"}, {key: "4567"}
        with pytest.raises(ValueError, match=rf"a and b .* were measured {what}: {key} is 0123 and 4567"):
            comparison(one, other).check()
        other.protocol = {}
        comparison(one, other).check()
