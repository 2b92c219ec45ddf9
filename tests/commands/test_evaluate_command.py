"""`evaluate`: any samples against any real images, by the whole protocol."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import Outcome

from lit_generative import ImageDataModule
from lit_generative.comparison import evaluate as evaluating
from lit_generative.pictures import save_png
from lit_generative.report.results import Comparison

Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return next(iter(ImageDataModule().loader("test", batch_size=120)))["image"]


@pytest.fixture
def folders(tmp_path: Path, images: torch.Tensor) -> None:
    """Gray pictures of one size and coloured ones of mixed sizes, and a note."""
    for i, image in enumerate(images):
        save_png(image, tmp_path / ("real" if i < 60 else "fake") / f"{i}.png")
        colour = torch.cat([image, -image, image / 2])[:, : 28 - i % 5, : 24 + i % 4]
        save_png(colour, tmp_path / ("real-colour" if i < 60 else "fake-colour") / f"{i}.png")
    (tmp_path / "fake-colour" / "notes.txt").write_text("made by another program")


def result(folder: Path) -> Comparison:
    return Comparison.load(folder / "results.json")


@pytest.mark.usefixtures("folders")
def test_two_folders_of_mixed_sizes_and_modes(lit_generative: Run, tmp_path: Path) -> None:
    outcome = lit_generative("evaluate", "fake-colour", "--real", "real-colour", "--output", "out")
    assert outcome.status == 0, outcome.err
    assert "Fréchet distance" in outcome.out
    assert "images were resized to 64x64" in outcome.out
    found = result(tmp_path / "out")
    (run,) = found.runs
    assert run.protocol["extractor"] == "imagenet"  # of a person's own pictures, without a download
    assert (run.protocol["num_fake"], run.protocol["num_real"]) == (60, 60)
    assert run.protocol["data"]["image_shape"] == [3, 64, 64]
    names = {"frechet_distance", "recall", "coverage", "sharpness", "memorised", "memorised_features", "authenticity"}
    assert names <= run.metrics.keys()
    assert names <= found.floor.keys()
    assert run.metrics["memorised"] < 0.1
    assert run.metrics["frechet_infinity"] < run.metrics["frechet_distance"]
    assert run.metrics["vendi_score"] == pytest.approx(found.floor["vendi_score"], rel=0.3)
    assert "Vendi score" in outcome.out
    assert "Network evaluations" not in outcome.out  # of given images
    assert (tmp_path / "out" / "report.html").is_file()
    assert json.loads((tmp_path / "out" / "results.json").read_text())["command"].startswith("lit-generative evaluate")


@pytest.mark.usefixtures("folders")
def test_copies_are_found_and_the_second_run_measures_nothing(
    lit_generative: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", "real", "--real", "fake", "--training", "real", "--extractor", "random", "--output", "out"]
    assert lit_generative(*command).status == 0
    first = result(tmp_path / "out")
    assert first.runs[0].metrics["memorised"] == 1
    assert first.runs[0].metrics["authenticity"] == 0
    assert first.runs[0].metrics["train_gap"] > 0

    def fail(*_: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "measure", fail)
        assert lit_generative(*command).status == 0
    assert result(tmp_path / "out").runs == first.runs
    refused = lit_generative(*command, "--num_samples", "40")
    assert "output=out holds another comparison (num_samples is null there and 40 here)" in refused.err
    assert result(tmp_path / "out").runs == first.runs
    assert lit_generative(*command[:-1], "other", "--num_samples", "40").status == 0
    assert result(tmp_path / "other").runs[0].protocol["num_fake"] == 40


@pytest.mark.usefixtures("folders")
def test_a_checkpoint_draws_its_samples(lit_generative: Run, fitted: tuple, tmp_path: Path) -> None:
    checkpoint = str(fitted[1] / "checkpoints" / "last.ckpt")
    outcome = lit_generative(
        "evaluate", checkpoint, "--real", "real-colour", "--num_samples", "50", "--extractor", "random"
    )
    assert outcome.status == 0, outcome.err
    (run,) = result(tmp_path / "runs" / "evaluation").runs
    assert (run.family, run.protocol["num_fake"], run.seed) == ("VAE", 50, 0)
    assert run.protocol["data"]["image_shape"] == [1, 28, 28]  # as the model has them


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--real", "real"], "nowhere"),
        (["nowhere.ckpt", "--real", "real"], "nowhere.ckpt: there is no such file"),
        (["fake", "--real", "real.zip"], "real.zip: there is no such file"),
        (["fake", "--real", "few"], "few has 3 images, and a comparison needs at least 6"),
        (["fake", "--real", "real", "--num_samples", "70"], "fake has 60 images, fewer than num_samples=70"),
        (["fake", "--real", "real", "--image_size", "2"], "image_size=2: it must be at least 4"),
        (["fake", "--real", "real", "--output", "real"], "output=real is no comparison's folder"),
        (["fake", "--real", "real", "--extractor", "fashon"], "extractor is 'fashon'; it must be fashion, random"),
    ],
)
@pytest.mark.usefixtures("folders")
def test_wrong_usage_is_said_in_one_line(
    lit_generative: Run, tmp_path: Path, images: torch.Tensor, arguments: list[str], message: str
) -> None:
    for i in range(3):
        save_png(images[i], tmp_path / "few" / f"{i}.png")
    outcome = lit_generative("evaluate", *arguments)
    assert outcome.status != 0
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("folders")
def test_another_reports_folder_is_left_alone(lit_generative: Run, tmp_path: Path) -> None:
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "results.json").write_text("of a comparison")
    outcome = lit_generative("evaluate", "fake", "--real", "real", "--output", "compared")
    assert "output=compared is no comparison's folder; give a new one, nothing is overwritten" in outcome.err
    assert (tmp_path / "compared" / "results.json").read_text() == "of a comparison"
