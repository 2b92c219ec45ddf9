"""A short offline run with W&B, continued and tested from its checkpoint, and read back from its record files."""

import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import wandb
from lightning.pytorch.loggers import Logger
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from lit_generative import VAE, ImageDataModule
from lit_generative.cli import main
from lit_generative.loggers import LONGEST_WAITS, WandbLogger

BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_records(path: Path) -> Iterator[Record]:
    """Yield the messages of a W&B file: after its own header of 7 bytes, records framed as in LevelDB's log.

    A record is one full part, or a first, some middle and a last one. No part crosses a block of 32 KiB; each has a
    header of 7 bytes: checksum (of type and content), length, type. A block's last bytes that cannot hold one are void.
    """
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, message = 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        checksum, length, kind = struct.unpack_from("<IHB", content, position)
        part = content[position + 7 : position + 7 + length]
        assert zlib.crc32(part, zlib.crc32(bytes([kind]))) == checksum
        message = part if kind in (FULL, FIRST) else message + part
        position += 7 + length
        if kind in (FULL, LAST):
            yield Record.FromString(message)


@dataclass
class OfflineRun:
    """What is in the folder of an offline run."""

    folder: Path
    records: list[Record]

    @classmethod
    def read(cls, folder: Path) -> "OfflineRun":
        (path,) = folder.glob("*.wandb")
        return cls(folder, list(read_records(path)))

    def of_kind(self, kind: str) -> list[Any]:
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    @property
    def id(self) -> str:
        return self.of_kind("run")[0].run_id

    @property
    def config(self) -> dict[str, Any]:
        items = [item for update in self.of_kind("config") for item in update.update]
        return {item.key: json.loads(item.value_json) for item in items}

    @property
    def history(self) -> list[dict[str, Any]]:
        rows = [row.item for row in self.of_kind("history")]
        return [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row} for row in rows]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run of 2 epochs, which its checkpoint continued for a third and then tested."""
    root = tmp_path_factory.mktemp("wandb")
    size = ["--data.subset", "300", "--data.batch_size", "50", "--trainer.limit_val_batches", "2"]
    size += ["--evaluation.num_samples", "100", "--evaluation.num_real", "200"]
    options = ["--config", "extras/wandb", "--trainer.default_root_dir", str(root)]
    options += ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    fit = ["fit", "--config", "vae/mlp", *options, *size, "--trainer.check_val_every_n_epoch", "1"]
    fit += ["--trainer.log_every_n_steps", "4", "--grid.num_samples", "16"]
    checkpoints = root / "vae/mlp/version_0/checkpoints"
    test = ["test", *options, *size[-4:], "--trainer.limit_test_batches", "2", "--ckpt_path"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv)
        patch.setattr(sys, "path", sys.path.copy())
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_DATA_DIR", str(root / "artifacts"))
        patch.setenv("LIT_GENERATIVE_CACHE", str(root / "cache"))
        for arguments in (
            [*fit, "--trainer.max_epochs", "2", "--trainer.logger.init_args.log_model", "true"],
            [*fit, "--trainer.max_epochs", "3", "--ckpt_path", str(checkpoints / "last.ckpt")],
            [*test, str(checkpoints / "last.ckpt")],
        ):
            assert main(arguments) == 0
            wandb.finish()  # as the end of the process would
            if not (root / "best_of_the_first.ckpt").exists():
                shutil.copy(checkpoints / "best.ckpt", root / "best_of_the_first.ckpt")
        wandb.teardown()  # wait for the files to be whole
        yield root


@pytest.fixture(scope="module")
def runs(root: Path) -> list[OfflineRun]:
    """The records of the three commands."""
    found = [OfflineRun.read(folder) for folder in (root / "wandb").glob("offline-run-*")]
    return sorted(found, key=lambda run: run.of_kind("run")[0].start_time.ToNanoseconds())


def test_the_whole_configuration_is_logged(runs: list[OfflineRun]) -> None:
    config = runs[0].config
    assert config["model"]["class_path"] == "lit_generative.VAE"
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-3
    assert config["data"]["init_args"]["dataset"] == "fashion-mnist"
    assert config["data"]["init_args"]["subset"] == 300
    assert config["trainer"]["max_epochs"] == 2


def test_images_seen_are_the_axis_of_every_plot(runs: list[OfflineRun]) -> None:
    for run in runs:
        axes = [metric.step_metric for metric in run.of_kind("metric") if metric.glob_name == "*"]
        assert axes[-1] == "images_seen"


def test_every_row_has_the_images_seen_when_it_was_measured(runs: list[OfflineRun]) -> None:
    history = runs[0].history
    seen = {
        prefix: [row["images_seen"] for row in history if any(name.startswith(prefix) for name in row)]
        for prefix in ("train/", "val/", "evaluation/", "samples")
    }
    assert seen["train/"] == [200, 400, 600]  # every fourth batch of 50
    assert set(seen["val/"]) == set(seen["samples"]) == {300, 600}
    assert seen["evaluation/"] == [600]
    assert all(torch.isfinite(torch.tensor(row["train/loss"])) for row in history if "train/loss" in row)


def test_each_grid_is_logged_once_as_the_same_picture_as_in_the_run_folder(root: Path, runs: list[OfflineRun]) -> None:
    rows = [row for row in runs[0].history if "samples/filenames" in row]
    assert len(rows) == 2
    for row in rows:
        (name,) = row["samples/filenames"]
        with Image.open(runs[0].folder / "files" / name) as logged:
            assert logged.size == (4 * 28 + 3 * 2, 4 * 28 + 3 * 2)
            assert logged.getextrema()[0] < logged.getextrema()[1]
            with Image.open(root / f"vae/mlp/version_0/grids/images_{row['images_seen']:010d}.png") as written:
                assert logged.mode == written.mode == "L"
                assert logged.tobytes() == written.tobytes()


def test_the_evaluation_comes_with_its_protocol(root: Path, runs: list[OfflineRun]) -> None:
    evaluation, later = json.loads((root / "vae/mlp/version_0/evaluation.json").read_text())
    assert [evaluation["images_seen"], later["images_seen"]] == [600, 900]
    assert runs[0].config["evaluation_protocol"] == evaluation["protocol"]
    (row,) = [row for row in runs[0].history if "evaluation/frechet_distance" in row]
    assert row["evaluation/frechet_distance"] == pytest.approx(evaluation["metrics"]["frechet_distance"])


def test_checkpoints_are_artifacts_on_request(root: Path, runs: list[OfflineRun]) -> None:
    artifacts = runs[0].of_kind("artifact")
    assert {artifact.type for artifact in artifacts} == {"model"}
    sizes = {content.size for artifact in artifacts for content in artifact.manifest.contents}
    best = root / "best_of_the_first.ckpt"
    assert best.stat().st_size in sizes
    assert any("best" in artifact.aliases for artifact in artifacts)
    assert not runs[1].of_kind("artifact")


def test_a_checkpoint_continues_its_run(runs: list[OfflineRun]) -> None:
    fit, continued, tested = runs
    assert fit.id == continued.id == tested.id
    assert all(run.of_kind("run")[0].resume for run in runs)
    assert min(row["images_seen"] for row in continued.history if "train/loss" in row) == 800
    (row,) = [row for row in tested.history if "test/loss" in row]
    assert row["images_seen"] == 900
    assert "trainer" not in tested.config, "the training's configuration stays"
    assert tested.config["test"]["trainer"]["limit_test_batches"] == 2


def test_the_run_folder_is_that_of_the_first_logger(root: Path) -> None:
    (folder,) = (path for path in (root / "vae/mlp").iterdir() if path.name != "test")
    names = {path.name for path in folder.iterdir()}
    assert {"metrics.csv", "config.yaml", "checkpoints", "grids", "evaluation.json"} <= names
    assert not (root / "lit-generative").exists(), "Lightning's place for checkpoints if W&B came first"


def test_a_run_that_cannot_start_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(ValueError, match=r"Invalid project name 'my/project'"):
        _ = WandbLogger(project="my/project", offline=True, save_dir=tmp_path).experiment
    assert "WANDB_MODE" not in os.environ, "later runs are not offline"


@pytest.mark.parametrize("error", [wandb.errors.CommError("Timed out."), wandb.errors.UsageError("No API key")])
def test_a_run_goes_on_without_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: wandb.Error
) -> None:
    init = wandb.init

    def unreachable(*args: Any, **options: Any) -> Any:
        assert options["settings"].init_timeout == LONGEST_WAITS["init_timeout"], "it gives up within seconds"
        if options.get("mode") != "offline":
            raise error
        return init(*args, **options)

    monkeypatch.setattr(wandb, "init", unreachable)
    monkeypatch.delenv("WANDB_MODE")
    logger = WandbLogger(save_dir=tmp_path)
    logger.log_metrics({"loss": 1.0, "images_seen": 1.0}, step=0)
    wandb.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    out = capsys.readouterr().out
    assert str(error).rstrip(".") in out
    assert f"wandb sync {folder}" in out


class Notes(Logger):
    """A logger that notes what it is told of the run."""

    name = "notes"
    version = "first"

    def __init__(self) -> None:
        super().__init__()
        self.hyperparameters: list[dict[str, Any]] = []

    def log_hyperparams(self, params: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        self.hyperparameters.append(params)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert "images_seen" in metrics


def test_any_logger_is_told_of_a_run_in_python_once(
    make_vae: Callable[..., VAE], make_trainer: Callable[..., L.Trainer], data: ImageDataModule, tmp_path: Path
) -> None:
    notes = Notes()
    trainer = make_trainer(logger=notes, max_epochs=2, limit_train_batches=2, limit_val_batches=1, log_every_n_steps=1)
    trainer.fit(make_vae(), datamodule=data)
    (told,) = notes.hyperparameters
    assert told["model"]["class_path"] == "lit_generative.vae.module.VAE"
    assert told["model"]["init_args"]["optimizer"] == {"partial": "torch.optim.adam.Adam", "keywords": {"lr": 1e-3}}
    assert told["data"]["init_args"] == {"subset": 500, "batch_size": 50}
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert checkpoint["lit_generative"]["runs"] == {"Notes": "first"}
