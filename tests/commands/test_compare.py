import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.loggers.logger import Logger
from running import run

from lit_generative.commands.compare import passed_on
from lit_generative.comparison import run as comparing
from lit_generative.comparison.run import log_comparison
from lit_generative.data import ImageDataModule
from lit_generative.pictures import save_png
from lit_generative.report.results import Comparison
from lit_generative.training.budget import TimedTraining, Trained

SMALL = ["--num_samples", "60", "--evaluation.num_real", "80", "--likelihood_images", "0"]
TINY_GAN = """# A tiny GAN
data:
  class_path: ImageDataModule
  init_args: {subset: 60, batch_size: 20}
model:
  class_path: GAN
  init_args:
    latent_dim: 4
    loss: NonSaturatingLoss
    generator: {class_path: MLPGenerator, init_args: {hidden: [8]}}
    discriminator: {class_path: MLPDiscriminator, init_args: {hidden: [8]}}
"""


@pytest.fixture
def checkpoint(fitted: tuple) -> str:
    return str(fitted[1] / "checkpoints" / "last.ckpt")


def forbid(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError(f"{name} is called again")

    monkeypatch.setattr(owner, name, fail)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write no report, whose plots take seconds."""
    monkeypatch.setattr(comparing, "write_report", lambda folder: None)


@pytest.fixture(scope="module")
def compared(fitted: tuple, conditional: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A command that compares two checkpoints, and its folder."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    paths = [str(fitted[1] / "checkpoints" / "last.ckpt"), str(conditional)]
    command = ["compare", *paths, *SMALL, "--names", "plain", "of <classes>", "--output", str(folder)]
    outcome = run(*command)
    assert outcome.status == 0, outcome.err
    assert f"report: {folder}/report.html" in outcome.out
    assert (folder / "report.html").is_file()
    assert "Fréchet distance" in outcome.out
    return command, folder


@pytest.mark.usefixtures("no_report")
def test_checkpoints_are_compared_and_measured_once(
    compared: tuple[list[str], Path], lit_generative: Callable, fitted: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, folder = compared
    found = Comparison.load(folder / "results.json")
    assert [(run.name, run.seed, run.family) for run in found.runs] == [("plain", 0, "VAE"), ("of <classes>", 0, "VAE")]
    assert all(run.training is not None and run.training.minutes for run in found.runs)
    assert found.floor["frechet_distance"] > 0
    assert found.command.startswith("lit-generative compare ")
    at_the_end = json.loads((fitted[1] / "evaluation.json").read_text())[-1]
    assert at_the_end["protocol"]["split"] == "val"
    of_pixels = {"sharpness", "nearest", "memorised_features", "authenticity", "train_gap"}
    assert found.runs[0].metrics.keys() - at_the_end["metrics"].keys() == of_pixels
    assert found.floor.keys() >= of_pixels | {"memorised"}
    assert found.floor_spread["frechet_distance"] > 0
    assert found.runs[0].protocol["num_fake"] == 60
    assert [set(run.pictures) for run in found.runs] == [{"samples", "nearest"}] * 2
    assert all((folder / path).is_file() for shown in (found, *found.runs) for path in shown.pictures.values())
    forbid(monkeypatch, comparing, "measure")
    forbid(monkeypatch, comparing, "RealImages")
    again = lit_generative(*command)
    assert again.status == 0, again.err
    assert Comparison.load(folder / "results.json") == found
    other = lit_generative(*command, "--curve", "3")
    assert other.status == 1
    assert f"output={folder} holds another comparison (protocol is" in other.err
    assert "go on with that one by `lit-generative compare" in other.err


@pytest.mark.usefixtures("no_report")
def test_a_changed_checkpoint_is_measured_again(checkpoint: str, lit_generative: Callable, tmp_path: Path) -> None:
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(Path(checkpoint).read_bytes())
    command = ["compare", "copy.ckpt", *SMALL, "--output", "out", "--names", "model"]
    assert lit_generative(*command).status == 0
    before = Comparison.load(tmp_path / "out" / "results.json").runs[0].metrics
    saved = torch.load(copy, weights_only=True)
    saved["state_dict"] = {name: 1.2 * tensor for name, tensor in saved["state_dict"].items()}
    torch.save(saved, copy)
    assert lit_generative(*command).status == 0
    assert Comparison.load(tmp_path / "out" / "results.json").runs[0].metrics != before


@pytest.mark.usefixtures("no_report")
def test_recipes_are_trained_and_a_stopped_comparison_goes_on(
    lit_generative: Callable, checkpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY_GAN)
    command = ["compare", checkpoint, "--recipes", "tiny.yaml", "--minutes", "0.001", "--seeds", "2", *SMALL]
    command += ["--output", "out", "--names", "a VAE", "a GAN"]
    whole_training = TimedTraining.train

    def train(training: TimedTraining, seed: int) -> Trained:
        if seed == 1:
            raise KeyboardInterrupt
        return whole_training(training, seed)

    monkeypatch.setattr(TimedTraining, "train", train)
    stopped = lit_generative(*command)
    assert stopped.status == 130
    assert "go on with: lit-generative compare" in stopped.err
    assert "--seeds 2" in stopped.err
    assert "training 2 of 2: tiny.yaml, seed 1" in stopped.out
    monkeypatch.setattr(TimedTraining, "train", whole_training)
    forbid(monkeypatch, TimedTraining, "_try")
    outcome = lit_generative(*command)
    assert outcome.status == 0, outcome.err
    assert "training 1 of 2" not in outcome.out
    found = Comparison.load(tmp_path / "out" / "results.json")
    assert [(run.name, run.seed) for run in found.runs] == [("a VAE", 0), ("a GAN", 0), ("a GAN", 1)]
    assert found.runs[1].metrics != found.runs[2].metrics
    assert all(run.training.images > 0 and run.training.images % 20 == 0 for run in found.runs[1:])
    assert all(run.training.history for run in found.runs[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing is given to compare; name checkpoints, folders of images, or --recipes"),
        (["nowhere.ckpt"], "nowhere.ckpt: there is no such file"),
        (["broken.ckpt"], "checkpoint broken.ckpt is refused: it is damaged"),
        (["--recipes", "vae/fashon"], "vae/fashon: neither a file nor a recipe; the nearest are vae/fashion"),
        (["--recipes", "broken.ckpt"], "broken.ckpt, which is no YAML file; checkpoints come before all options"),
        (["--recipes", "vae/mlp", "vae/mlp"], "recipes has two of the name vae/mlp"),
        (["--recipes", "vae/mlp", "--minutes", "0"], "minutes=0.0: it must be positive"),
        (["--recipes", "vae/mlp", "--seeds", "0"], "seeds=0: it must be at least 1"),
        (["--recipes", "vae/mlp", "--names", "a", "b"], "names has 2 for 1 models; give one for each"),
        (["--recipes", "vae/mlp", "--names", "../a"], "names has '../a', but files are called so"),
        (["--recipes", "vae/mlp", "--evaluations", "0"], "evaluations=0: it must be at least 1; null is"),
        (["--recipes", "vae/mlp", "--curve", "5", "0"], "curve=0: it must be at least 1"),
        (["--recipes", "vae/mlp", "--likelihood_images", "1"], "likelihood_images=1: it must be at least 2; 0 is none"),
        (["--recipes", "vae/mlp", "--num_samples", "3"], "num_samples=3: it must be at least 6"),
        (["--recipes", "vae/mlp", "--output", "full"], "output=full is no comparison's folder"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_done(
    lit_generative: Callable, options: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.ckpt").write_bytes(b"PK")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    outcome = lit_generative("compare", *options)
    assert outcome.status == 1
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_models_of_other_data_are_not_compared(
    lit_generative: Callable, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = ["--trainer.max_steps", "2", "--evaluate.at_end", "false", "--trainer.enable_progress_bar", "false"]
    sizes = ["--data.image_size", "16", "--data.subset", "60", "--trainer.limit_val_batches", "1"]
    other = lit_generative("fit", "--config", "vae/mlp", *tiny, *sizes, "--trainer.max_epochs", "1")
    assert other.status == 0, other.err
    path = str(other.folder / "checkpoints" / "last.ckpt")
    forbid(monkeypatch, comparing, "measure")
    outcome = lit_generative("compare", checkpoint, path, *SMALL)
    assert outcome.status == 1
    assert (
        f"{path} was trained on fashion-mnist (1, 16, 16), the first model on fashion-mnist (1, 28, 28)" in outcome.err
    )
    given = lit_generative("compare", path, *SMALL, "--data.dataset", "fashion-mnist")
    assert (
        f"{path}: VAE is made for images of shape (1, 16, 16), but those of fashion-mnist have (1, 28, 28)" in given.err
    )


def pictures(folder: Path, seed: int) -> ImageDataModule:
    """Forty pictures in a folder of one name."""
    draw = torch.Generator().manual_seed(seed)
    for i in range(40):
        save_png(torch.rand(1, 8, 8, generator=draw) * 2 - 1, folder / "faces" / f"{i}.png")
    return ImageDataModule(str(folder / "faces"))


def test_data_of_one_name_are_told_apart_by_their_images(tmp_path: Path) -> None:
    one, copy, other = (pictures(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one.protocol("test") == other.protocol("test")
    assert comparing._are_the_same(one, copy)
    assert not comparing._are_the_same(one, other)


def test_options_are_passed_on_with_their_values() -> None:
    arguments = ["a.ckpt", "--data.dataset", "x", "--names", "b", "--data=c.yaml", "--database", "d", "--data.subset=3"]
    assert passed_on(arguments, "--data") == ["--data.dataset", "x", "--data=c.yaml", "--data.subset=3"]


class Board:
    """What TensorBoard's writer takes."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.images: dict[str, tuple[int, ...]] = {}

    def add_text(self, name: str, text: str) -> None:
        self.texts[name] = text

    def add_image(self, name: str, image: Any, dataformats: str) -> None:
        self.images[name] = image.shape


class BoardLogger(Logger):
    """A logger with a board alone."""

    name, version = "board", 0

    def __init__(self) -> None:
        super().__init__()
        self.experiment = Board()
        self.ends: list[str] = []

    def log_metrics(self, *_: Any) -> None: ...

    def log_hyperparams(self, *_: Any) -> None: ...

    def finalize(self, status: str) -> None:
        self.ends.append(status)


class TableLogger(BoardLogger):
    """A logger that takes tables and images, as that of W&B does."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, tuple[list, list]] = {}
        self.images: dict[str, list[str]] = {}

    def log_table(self, key: str, columns: list[str], data: list[list[str]]) -> None:
        self.tables[key] = columns, data

    def log_image(self, key: str, images: list[str]) -> None:
        self.images[key] = images


def test_loggers_get_tables_and_plots(compared: tuple[list[str], Path]) -> None:
    folder = compared[1]
    found = Comparison.load(folder / "results.json")
    log_comparison(tables := TableLogger(), found, folder)
    columns, rows = tables.tables["Quality and diversity"]
    assert columns[:2] == ["model", "runs"]
    assert [row[0] for row in rows] == ["real images (the floor)", "plain", "of <classes>"]
    assert all(len(row) == len(columns) for row in rows)
    assert all(Path(path).is_file() for paths in tables.images.values() for path in paths)
    log_comparison(board := BoardLogger(), found, folder)
    assert board.experiment.texts["Quality and diversity"].splitlines()[1].startswith("| --- | --- |")
    assert board.experiment.images.keys() == tables.images.keys() > {"samples"}
    assert tables.ends == board.ends == ["success"]
