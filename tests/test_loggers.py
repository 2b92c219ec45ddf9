"""Every logger gets the same metrics and pictures at the same steps, by its own methods."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.loggers import Logger
from PIL import Image

from lit_generative import ImageDataModule, loggers
from lit_generative.callbacks import SampleGrid
from lit_generative.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, log_picture, log_table, settle


class Recorder(Logger):
    """A logger that keeps what it is given; its experiment is a stand-in for that of a tracker."""

    name, version = "recorder", "0"

    def __init__(self, experiment: Any = None) -> None:
        super().__init__()
        self._own = experiment
        self.metrics: list[tuple[int | None, dict[str, float]]] = []

    @property
    def experiment(self) -> Any:
        return self._own

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append((step, metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


class Comet:
    """What Comet documents of an experiment: https://www.comet.com/docs/v2/api-and-sdk/python-sdk/reference/Experiment."""

    def __init__(self) -> None:
        self.images: list[tuple[str, str | None, int | None]] = []
        self.tables: list[Any] = []

    def log_image(
        self,
        image_data: Any,
        name: str | None = None,
        overwrite: bool = False,
        image_format: str = "png",
        step: int | None = None,
    ) -> None:
        with Image.open(image_data) as picture:
            picture.load()
        self.images.append((Path(image_data).name, name, step))

    def log_table(self, filename: str, tabular_data: Any = None, headers: Any = False) -> None:
        self.tables.append((filename, tabular_data, headers))


class TensorBoard:
    """The part of TensorBoard's SummaryWriter that takes pictures and texts."""

    def __init__(self) -> None:
        self.images: list[tuple[str, int | None]] = []
        self.texts: list[tuple[str, str]] = []

    def add_image(self, tag: str, pixels: Any, global_step: int | None = None, dataformats: str = "CHW") -> None:
        assert dataformats == "HWC"
        assert pixels.shape[2] == 3
        self.images.append((tag, global_step))

    def add_text(self, tag: str, text: str) -> None:
        self.texts.append((tag, text))


class Mlflow:
    """The part of MLflow's client that takes pictures and texts."""

    def __init__(self) -> None:
        self.images: list[tuple[str, str, int | None]] = []
        self.texts: list[tuple[str, str]] = []

    def log_image(self, run_id: str, image: Any, *, key: str, step: int | None = None) -> None:
        self.images.append((run_id, key, step))

    def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
        self.texts.append((artifact_file, text))


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_metrics_and_pictures_are_at_the_same_steps_for_all_loggers(
    family: str, make_vae: Callable, make_gan: Callable, make_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    comet, board, client = Comet(), TensorBoard(), Mlflow()
    with_run = Recorder(client)
    with_run.run_id = "run 1"  # type: ignore[attr-defined]
    all_of_them = [Recorder(), Recorder(comet), Recorder(board), with_run]
    data = ImageDataModule(subset=100, batch_size=25)
    options = {"max_epochs": 2, "limit_val_batches": 1, "log_every_n_steps": 1, "callbacks": [SampleGrid(4)]}
    trainer = make_trainer(logger=all_of_them, **options)
    trainer.fit({"vae": make_vae, "gan": make_gan}[family](), data)
    first = all_of_them[0].metrics
    assert all(logger.metrics == first for logger in all_of_them)
    of_validation = [step for step, metrics in first if any(name.startswith("val/") for name in metrics)]
    last_of_training = max(step for step, metrics in first if any(name.startswith("train/") for name in metrics))
    steps = [step for _, step in board.images]
    assert [step for *_, step in comet.images] == steps
    assert client.images == [("run 1", "samples", step) for step in steps]
    # as each logger has the metrics of a validation at the step that precedes it, pictures are not far from these
    assert len(steps) == len(of_validation) == 2
    assert steps == of_validation
    assert abs(steps[-1] - last_of_training) <= 1


def test_tables_go_to_every_logger_that_takes_tables_or_texts() -> None:
    comet, board, client = Comet(), TensorBoard(), Mlflow()
    with_run = Recorder(client)
    with_run.run_id = "run 1"  # type: ignore[attr-defined]
    for logger in (Recorder(), Recorder(comet), Recorder(board), with_run):
        log_table(logger, "quality", ["model", "recall"], [["a|b", "0.6"]])
    assert comet.tables == [("quality.csv", [["a|b", "0.6"]], ["model", "recall"])]
    text = "| model | recall |\n| --- | --- |\n| a/b | 0.6 |"
    assert (board.texts, client.texts) == ([("quality", text)], [("quality.md", text)])


@pytest.mark.parametrize("cls", [CSVLogger, TensorBoardLogger])
def test_a_logger_without_a_folder_writes_into_that_of_the_run(cls: Any, tmp_path: Path) -> None:
    if cls is TensorBoardLogger:
        pytest.importorskip("tensorboard")
    alone, elsewhere = cls(), cls(tmp_path / "other", "named", 3)
    settle([alone, elsewhere], tmp_path / "run")
    within = tmp_path / "run" / ("csv" if cls is CSVLogger else "tensorboard")
    assert Path(alone.log_dir) == within
    assert Path(elsewhere.log_dir) == tmp_path / "other" / "named" / "version_3"
    alone.log_metrics({"val/loss": 1.0}, 3)
    alone.save()
    assert any(within.iterdir())


def test_tensorboard_has_pictures_and_numbers_by_step(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = tmp_path / "picture.png"
    Image.new("L", (9, 5)).save(picture)
    logger = TensorBoardLogger(tmp_path, "", "")
    logger.log_metrics({"val/loss": 2.0}, 7)
    log_picture(logger, "samples", picture, 7)
    logger.finalize("success")
    read = reading.EventAccumulator(logger.log_dir, size_guidance={"images": 0, "scalars": 0})
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("val/loss")] == [(7, 2.0)]
    assert [(event.step, event.width, event.height) for event in read.Images("samples")] == [(7, 9, 5)]


def test_mlflow_has_pictures_and_numbers_by_step(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    picture = tmp_path / "picture.png"
    Image.new("L", (9, 5)).save(picture)
    logger = MLFlowLogger(save_dir=tmp_path / "runs")
    logger.log_metrics({"val/loss": 2.0}, 7)
    log_picture(logger, "samples", picture, 7)
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as base:
        assert base.execute("select key, value, step from metrics").fetchall() == [("val/loss", 2.0, 7)]
    (image,) = (tmp_path / "runs" / "mlruns").rglob("samples*step+7*.png")
    with Image.open(image) as saved:
        assert saved.size == (9, 5)


@pytest.mark.parametrize(
    ("cls", "package"),
    [("TensorBoardLogger", "tensorboard"), ("MLFlowLogger", "mlflow")],
)
def test_a_missing_package_is_one_sentence(
    cls: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"{cls} needs a package that is not installed: pip install {package}"):
        getattr(loggers, cls)(tmp_path)
