import inspect
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lit_generative.comparison.measure import MeasurementProtocol
from lit_generative.comparison.request import ComparisonRequest
from lit_generative.drawing import draw_samples
from lit_generative.editing import edit_file
from lit_generative.latent_space.selection import LatentRequest
from lit_generative.latent_space.write import draw_latents
from lit_generative.recipes import recipes
from lit_generative.training.extractor import train_extractor


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        return np.array(picture)


@pytest.fixture
def checkpoint(fitted: tuple) -> str:
    return str(fitted[1] / "checkpoints" / "last.ckpt")


def test_samples_are_files_of_the_datas_size(lit_generative: Callable, checkpoint: str, tmp_path: Path) -> None:
    options = ["--num_samples", "5", "--grid", "all.png", "--batch_size", "2"]
    outcome = lit_generative("sample", "--ckpt_path", checkpoint, "--output", "out", *options)
    assert outcome.status == 0, outcome.err
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [f"sample_00000{i}.png" for i in range(5)]
    assert {pixels(path).shape for path in files} == {(28, 28)}
    assert len({pixels(path).tobytes() for path in files}) == 5
    assert (pixels(tmp_path / "all.png")[:28, :28] == pixels(files[0])).all()


def test_the_seed_decides_the_samples(lit_generative: Callable, checkpoint: str, tmp_path: Path) -> None:
    for name, seed in {"a": "1", "b": "1", "c": "2"}.items():
        options = ["--output", name, "--num_samples", "1", "--seed", seed]
        assert lit_generative("sample", "--ckpt_path", checkpoint, *options).status == 0
    a, b, c = (pixels(tmp_path / name / "sample_000000.png") for name in "abc")
    assert (a == b).all()
    assert (a != c).any()


def test_nothing_is_overwritten(lit_generative: Callable, checkpoint: str, tmp_path: Path) -> None:
    command = ["sample", "--ckpt_path", checkpoint, "--output", "out", "--num_samples", "2"]
    assert lit_generative(*command).status == 0
    before = (tmp_path / "out" / "sample_000000.png").stat().st_mtime_ns
    again = lit_generative(*command, "--seed", "5")
    assert again.status == 1
    assert re.search(r"error: out/sample_00000\d\.png is there already; give another output", again.err)
    (tmp_path / "all.png").touch()
    grid = lit_generative(*command[:3], "--output", "other", "--grid", "all.png")
    assert "all.png is there already" in grid.err
    assert not (tmp_path / "other").exists()
    assert (tmp_path / "out" / "sample_000000.png").stat().st_mtime_ns == before


def test_labels_are_repeated_in_turn(lit_generative: Callable, conditional: Path, tmp_path: Path) -> None:
    def draw(name: str, *labels: str) -> list[np.ndarray]:
        options = ["--output", name, "--num_samples", "4", *labels]
        outcome = lit_generative("sample", "--ckpt_path", str(conditional), *options)
        assert outcome.status == 0, outcome.err
        return [pixels(path) for path in sorted((tmp_path / name).iterdir())]

    all_classes, in_turn, only = draw("all"), draw("turn", "--labels", "[0,3]"), draw("only", "--labels", "[0]")
    assert (in_turn[0] == only[0]).all()
    assert (in_turn[2] == only[2]).all()
    assert (in_turn[1] != only[1]).any()  # the same noise, but class 3
    assert (in_turn[1] != all_classes[1]).any()
    assert (in_turn[0] == all_classes[0]).all()


def test_a_label_that_is_no_class_is_refused(lit_generative: Callable, conditional: Path, tmp_path: Path) -> None:
    options = ["--output", "out", "--labels", "[10]"]
    outcome = lit_generative("sample", "--ckpt_path", str(conditional), *options)
    assert outcome.status == 1
    assert "error: labels=10: there is no such class, give indices or names of: 0 t-shirt, 1 trouser" in outcome.err
    assert not (tmp_path / "out").exists()


def test_recipes_are_listed_with_a_line_each(lit_generative: Callable) -> None:
    outcome = lit_generative("recipes")
    assert outcome.status == 0
    printed = " ".join(re.sub("[│|]", " ", outcome.out).split())
    for recipe in recipes():
        assert recipe.name in printed
        assert recipe.summary.split()[0] in printed


@pytest.mark.parametrize("command", [[], ["--help"], ["fit", "--help"], ["sample", "--help"], ["recipes", "--help"]])
def test_help_is_help(lit_generative: Callable, command: list[str]) -> None:
    outcome = lit_generative(*command)
    assert outcome.status == 0
    assert "usage:" in outcome.out
    assert not outcome.err


@pytest.mark.parametrize(
    ("command", "called"),
    [
        ("sample", [draw_samples]),
        ("edit", [edit_file]),
        ("latent", [draw_latents, LatentRequest]),
        ("extractor", [train_extractor]),
        ("compare", [ComparisonRequest, MeasurementProtocol]),
    ],
)
def test_signatures_and_their_docstrings_are_the_help(
    lit_generative: Callable, command: str, called: list[Callable]
) -> None:
    printed = " ".join(lit_generative(command, "--help").out.split())
    given_otherwise = {"ckpt_path", "checkpoints", "request", "protocol", "evaluator", "data", "fit_options", "command"}
    for one in called:
        explained = dict(re.findall(r"^ +(\w+): (\S+ \S+ \S+)", inspect.getdoc(one) or "", re.MULTILINE))
        for name in inspect.signature(one).parameters.keys() - given_otherwise:
            assert f"--{name}" in printed
            if name not in ("recipes", "names"):  # lists of words, which have their own
                assert explained[name] in printed
