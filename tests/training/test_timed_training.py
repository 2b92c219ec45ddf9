import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_generative.checkpoints import read_checkpoint
from lit_generative.training import budget
from lit_generative.training.budget import TimedTraining
from lit_generative.training.cli import TrainerCLI

VAE = """# A tiny VAE
trainer:
  max_epochs: 1000
  callbacks:
    - class_path: EMA
      init_args: {decay: 0.9}
data:
  class_path: ImageDataModule
  init_args: {subset: 60, batch_size: 20}
evaluate: {every_n_epochs: 1}
checkpoint: {monitor: evaluation/frechet_distance}
model:
  class_path: VAE
  init_args:
    latent_dim: 4
    likelihood: GaussianLikelihood
    encoder: {class_path: MLPEncoder, init_args: {hidden: [8]}}
    decoder: {class_path: MLPDecoder, init_args: {hidden: [8]}}
    optimizer: {class_path: Adam, init_args: {lr: 1.0e-2}}
    lr_scheduler: {class_path: OneCycleLR, init_args: {max_lr: 1.0e-2}}
"""
GAN = """# A tiny GAN
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
IMAGES = 12 * 20
SMALL = ["--evaluation.num_samples", "30", "--evaluation.num_real", "50", "--trainer.limit_val_batches", "1"]


class Stop(L.Callback):
    """Raises an error after a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


class Killed(Exception):
    """Nothing that Lightning or the package knows."""


def tiny(recipe: str, folder: Path) -> TimedTraining:
    """Return the trainings of a recipe, of twelve steps each."""
    path = folder / "tiny.yaml"
    path.write_text(recipe)
    return TimedTraining(str(path), {"images": IMAGES}, folder / "training", SMALL)


def stop_next(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    """Let the next training end with an error."""

    def start(command: str, arguments: list[str], **options: Any) -> Any:
        monkeypatch.setattr(budget, "TrainerCLI", TrainerCLI)
        return TrainerCLI(command, arguments, callbacks=[Stop(step, error)], **options)

    monkeypatch.setattr(budget, "TrainerCLI", start)


def history(training: TimedTraining) -> list[dict[str, Any]]:
    files = sorted((training.folder / "seed_0" / "tiny").glob("*/evaluation.json"))
    return [record for path in files for record in json.loads(path.read_text())]


@pytest.mark.parametrize("recipe", [VAE, GAN], ids=["vae", "gan"])
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("unbroken", "killed"):
        (tmp_path / name).mkdir()
    whole, killed = tiny(recipe, tmp_path / "unbroken"), tiny(recipe, tmp_path / "killed")
    done = whole.train(0)
    unbroken, found = read_checkpoint(done.checkpoint), history(whole)
    assert_has_its_steps(unbroken, found)
    stop_next(monkeypatch, 8, Killed())
    assert whole.train(0) == done, "a finished training is not trained again"
    with pytest.raises(Killed):
        killed.train(0)
    assert killed.finished(0) is None
    # a state that was being written when the process was killed
    damaged = killed.folder / "seed_0" / "tiny" / "version_7" / "checkpoints" / "last.ckpt"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"PK")
    resumed = read_checkpoint(killed.train(0).checkpoint)
    for name, tensor in unbroken["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name
    by_step = {record["step"]: record["metrics"] for record in history(killed)}
    assert by_step == {record["step"]: record["metrics"] for record in found}


def assert_has_its_steps(checkpoint: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """Check a finished training: its number of steps, an evaluation each quarter, the clock, and the schedules."""
    assert checkpoint["global_step"] == 12
    assert [record["step"] for record in found] == [3, 6, 9, 12]
    assert {record["protocol"]["split"] for record in found} == {"val"}
    minutes = [record["training_minutes"] for record in found]
    assert minutes == sorted(minutes)
    assert minutes[-1] == checkpoint["callbacks"]["TrainingClock"]["seconds"] / 60
    for schedule in checkpoint["lr_schedulers"]:  # has come to its end
        assert schedule["last_epoch"] == schedule["total_steps"] - 1


def test_a_training_that_diverges_is_kept_as_far_as_it_went(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = tiny(GAN, tmp_path)
    stop_next(monkeypatch, 4, FloatingPointError("the loss is not finite at step 4"))
    done = training.train(0)
    assert done.problem == "the loss is not finite at step 4"
    assert read_checkpoint(done.checkpoint)["global_step"] == 3  # the end of the epoch before
    assert training.finished(0) == done
    stop_next(monkeypatch, 1, FloatingPointError("the loss is not finite at step 1"))
    with pytest.raises(FloatingPointError, match="step 1"):  # there is nothing to measure
        training.train(1)


def test_a_recipe_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    training = tiny(VAE, tmp_path)
    assert not training.is_tried
    found = read_checkpoint(training.tried)
    assert training.is_tried
    assert found["lit_generative"]["data"]["init_args"]["subset"] == 60
    assert found["callbacks"]["Budget"]["limit"]["minutes"] <= 10 / 60
    monkeypatch.delattr(budget, "TrainerCLI")
    assert training.tried.is_file()
