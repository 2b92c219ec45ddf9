"""fit, validate, test and predict, from the command line to the files they leave."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from running import TINY, Outcome

from lit_generative import VAE, GenerativeModule
from lit_generative.nn import MLPEncoder

Fitted = tuple[Outcome, Path]


def test_a_run_leaves_everything_in_its_folder(fitted: Fitted) -> None:
    outcome, folder = fitted
    assert folder.parent.parts[-3:] == ("runs", "vae", "mlp")
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["init_args"]["subset"] == 200
    assert [path.name for path in sorted((folder / "grids").iterdir())] == [
        "images_0000000200.png",
        "images_0000000400.png",
    ]
    (record,) = json.loads((folder / "evaluation.json").read_text())
    assert record["images_seen"] == 400
    assert record["protocol"]["extractor"] == "fashion"
    printed = " ".join(outcome.out.split())
    assert "VAE after 400 images" in printed
    assert f"frechet_distance │ {record['metrics']['frechet_distance']:.4g}" in printed


def test_metrics_are_against_images_seen(fitted: Fitted) -> None:
    with (fitted[1] / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["train/loss"]]
    assert [float(row["images_seen"]) for row in train] == [50.0 * k for k in range(1, 9)]
    assert float(train[-1]["train/loss"]) < float(train[0]["train/loss"])
    assert [float(row["images_seen"]) for row in rows if row["val/loss"]] == [200.0, 400.0]
    assert [row["images_seen"] for row in rows if row["evaluation/frechet_distance"]] == ["400"]


def test_a_model_from_yaml_comes_back_in_python(fitted: Fitted) -> None:
    model = GenerativeModule.load_from_checkpoint(fitted[1] / "checkpoints" / "last.ckpt")
    assert type(model) is VAE
    assert type(model.encoder) is MLPEncoder
    assert model.latent_dim == 32
    assert model.images_seen == 400
    assert model.make_optimizer(model.parameters()).defaults["lr"] == 1e-3  # type: ignore[arg-type]
    torch.load(fitted[1] / "checkpoints" / "best.ckpt", weights_only=True)


def test_last_is_the_last_even_if_an_earlier_one_is_best(lit_generative: Callable, tmp_path: Path) -> None:
    earliest_is_best = ("--checkpoint.monitor", "images_seen", "--checkpoint.mode", "min")
    outcome = lit_generative("fit", "--config", "vae/mlp", *TINY, *earliest_is_best)
    checkpoints = tmp_path / outcome.folder / "checkpoints"
    seen = {
        name: GenerativeModule.load_from_checkpoint(checkpoints / name).images_seen
        for name in ("last.ckpt", "best.ckpt")
    }
    assert seen == {"last.ckpt": 400, "best.ckpt": 200}


def test_a_second_run_has_a_second_folder(fitted: Fitted, lit_generative: Callable, tmp_path: Path) -> None:
    first, second = (lit_generative("fit", "--config", "vae/mlp", *TINY, "--trainer.max_epochs", "1") for _ in range(2))
    assert first.folder != second.folder
    records = [json.loads((tmp_path / run.folder / "evaluation.json").read_text())[0] for run in (first, second)]
    assert records[0]["metrics"] == records[1]["metrics"]  # the same seed


def test_a_test_needs_the_checkpoint_alone(fitted: Fitted, lit_generative: Callable, tmp_path: Path) -> None:
    checkpoint = str(fitted[1] / "checkpoints" / "last.ckpt")
    options = ["--evaluation.num_samples", "60", "--evaluation.num_real", "80", "--evaluation.split", "val"]
    outcome = lit_generative("test", "--ckpt_path", checkpoint, *options)
    assert outcome.status == 0, outcome.err
    records = json.loads((tmp_path / outcome.folder / "evaluation.json").read_text())
    in_training = json.loads((fitted[1] / "evaluation.json").read_text())[0]
    assert records[-1]["metrics"] == pytest.approx(in_training["metrics"])
    assert records[-1]["losses"]["test/loss"] > 0
    assert records[-1]["images_seen"] == 400
    assert "test/nelbo" in outcome.out
    assert len(json.loads((fitted[1] / "evaluation.json").read_text())) == 1  # the training's own is left alone


def test_validation_repeats_the_trainings_own(fitted: Fitted, lit_generative: Callable) -> None:
    checkpoint = str(fitted[1] / "checkpoints" / "last.ckpt")
    outcome = lit_generative("validate", "--ckpt_path", checkpoint, "--trainer.enable_progress_bar", "false")
    assert outcome.status == 0, outcome.err
    assert "val/nelbo" in outcome.out
    assert "nats" in outcome.out


def test_prediction_writes_an_image_for_each_of_the_test_set(conditional: Path, lit_generative: Callable) -> None:
    options = ["--data.batch_size", "30", "--trainer.limit_predict_batches", "2"]
    outcome = lit_generative("predict", "--ckpt_path", str(conditional), *options)
    assert outcome.status == 0, outcome.err
    files = list((Path.cwd() / outcome.folder / "samples").iterdir())
    assert len(files) == 60
    with Image.open(files[0]) as picture:
        assert (picture.mode, picture.size) == ("L", (28, 28))


USERS_MODEL = """
from lit_generative import VAE

class BetaVAE(VAE):
    def __init__(self, encoder, decoder, likelihood, latent_dim, num_classes=None, beta: float = 2.0,
                 optimizer=None, lr_scheduler=None):
        super().__init__(encoder, decoder, likelihood, latent_dim, num_classes)
        self.beta = beta

    def objective(self, nll, kl):
        return nll + self.beta * kl
"""


def test_a_users_model_runs_by_its_dotted_path(
    lit_generative: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_models.py").write_text(USERS_MODEL)
    options = ["--model", "own_models.BetaVAE", "--model.beta", "3.0", "--trainer.max_epochs", "1"]
    outcome = lit_generative("fit", "--config", "vae/mlp", *TINY, *options)
    assert outcome.status == 0, outcome.err
    with (tmp_path / outcome.folder / "metrics.csv").open() as file:
        row = next(csv.DictReader(file))
    loss, nll, kl = (float(row[f"train/{name}"]) for name in ("loss", "nll", "kl"))
    assert loss == pytest.approx(nll + 3 * kl, rel=1e-4)
    checkpoint = str(tmp_path / outcome.folder / "checkpoints" / "last.ckpt")
    monkeypatch.delitem(sys.modules, "own_models")  # as in a new process
    refused = lit_generative("sample", "--ckpt_path", checkpoint, "--output", "drawn", "--num_samples", "2")
    assert "`import own_models` first" in refused.err
    assert refused.status == 1
    drawn = lit_generative(
        "sample", "--import", "own_models", "--ckpt_path", checkpoint, "--output", "drawn", "--num_samples", "2"
    )
    assert drawn.status == 0, drawn.err
    assert len(list((tmp_path / "drawn").iterdir())) == 2


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until a file is there, for at most five minutes."""
    for _ in range(3000):
        if path.is_file():
            return
        assert process.poll() is None, process.stdout and process.stdout.read()
        time.sleep(0.1)
    raise AssertionError(f"{path} was never written")


def test_ctrl_c_ends_with_a_checkpoint_that_resumes(lit_generative: Callable, tmp_path: Path) -> None:
    options = ["--data.subset", "200", "--data.batch_size", "20", "--trainer.enable_progress_bar", "false"]
    options += ["--evaluation.num_samples", "30", "--evaluation.num_real", "30", "--trainer.limit_val_batches", "1"]
    call = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's & ignores it
    call += "from lit_generative.cli import script; script()"
    arguments = ["fit", "--config", "vae/mlp", *options, "--trainer.check_val_every_n_epoch", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", call, *arguments, "--trainer.max_epochs", "100000"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    folder = tmp_path / "runs" / "vae" / "mlp" / "version_0"
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "Traceback" not in printed
    assert "run folder: runs/vae/mlp/version_0" in printed
    checkpoint = folder / "checkpoints" / "last.ckpt"
    images_seen = GenerativeModule.load_from_checkpoint(checkpoint).images_seen
    assert images_seen > 0
    epochs = str(images_seen // 200 + 1)
    resumed = lit_generative(*arguments, "--trainer.max_epochs", epochs, "--ckpt_path", str(checkpoint))
    assert resumed.status == 0, resumed.err
    last = GenerativeModule.load_from_checkpoint(tmp_path / resumed.folder / "checkpoints" / "last.ckpt")
    assert last.images_seen == int(epochs) * 200
