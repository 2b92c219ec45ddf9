import json
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_generative.checkpoints import read_checkpoint
from lit_generative.comparison import training
from lit_generative.comparison.training import Pace, Schedule, TrainingPlan, calibrate, finished_training, train
from lit_generative.training import cli as commands

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
SCHEDULE = Schedule(steps=12, batches_between_validations=1, images_between_evaluations=50)  # evaluated every 3 steps


class Stop(L.Callback):
    """Raises an error after a step."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


class Killed(Exception):
    """Nothing that Lightning or the package knows."""


@pytest.fixture
def recipes(tmp_path: Path) -> dict[str, str]:
    for name, text in {"vae": VAE, "gan": GAN}.items():
        (tmp_path / f"tiny-{name}.yaml").write_text(text)
    return {name: str(tmp_path / f"tiny-{name}.yaml") for name in ("vae", "gan")}


@pytest.fixture
def plan(tmp_path: Path) -> TrainingPlan:
    small = ["--evaluation.num_samples", "30", "--evaluation.num_real", "50", "--trainer.limit_val_batches", "1"]
    return TrainingPlan(tmp_path / "training", 0.01, small)


def stopped(monkeypatch: pytest.MonkeyPatch, step: int, error: BaseException) -> None:
    """Let the next training end with an error."""

    def start(command: str, arguments: list[str], **options: Any) -> Any:
        monkeypatch.setattr(training, "start", commands.start)
        return commands.start(command, arguments, callbacks=[Stop(step, error)], **options)

    monkeypatch.setattr(training, "start", start)


def history(recipe: str, plan: TrainingPlan) -> list[dict[str, Any]]:
    folder = plan.folder / "seed_0" / Path(recipe).stem
    return [record for path in sorted(folder.glob("*/evaluation.json")) for record in json.loads(path.read_text())]


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_a_killed_training_goes_on_as_if_nothing_had_been(
    family: str, recipes: dict[str, str], plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe, unbroken_plan = recipes[family], TrainingPlan(tmp_path / "unbroken", plan.minutes, plan.options)
    done = train(recipe, 0, SCHEDULE, unbroken_plan)
    unbroken, found = read_checkpoint(done.checkpoint), history(recipe, unbroken_plan)
    assert_has_its_steps(unbroken, found)
    stopped(monkeypatch, 8, Killed())
    assert train(recipe, 0, SCHEDULE, unbroken_plan) == done, "a finished training is not trained again"
    with pytest.raises(Killed):
        train(recipe, 0, SCHEDULE, plan)
    assert finished_training(recipe, 0, plan) is None
    # a state that was being written when the process was killed
    damaged = plan.folder / "seed_0" / f"tiny-{family}" / "version_7" / "checkpoints" / "last.ckpt"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"PK")
    resumed = read_checkpoint(train(recipe, 0, SCHEDULE, plan).checkpoint)
    for name, tensor in unbroken["state_dict"].items():
        assert torch.equal(resumed["state_dict"][name], tensor), name
    by_step = {record["step"]: record["metrics"] for record in history(recipe, plan)}
    assert by_step == {record["step"]: record["metrics"] for record in found}


def assert_has_its_steps(checkpoint: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """Check a finished training: its number of steps, an evaluation each quarter, the clock, and the schedules."""
    assert checkpoint["global_step"] == 12
    assert [record["step"] for record in found] == [3, 6, 9, 12]
    assert {record["protocol"]["split"] for record in found} == {"val"}
    minutes = [record["training_minutes"] for record in found]
    assert minutes == sorted(minutes)
    assert minutes[-1] == checkpoint["callbacks"]["TrainingClock"]["seconds"] / 60
    for schedule in checkpoint["lr_schedulers"]:  # has just come to its end
        assert (schedule["total_steps"], schedule["last_epoch"]) == (12, 12)


def test_a_training_that_diverges_is_kept_as_far_as_it_went(
    recipes: dict[str, str], plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(monkeypatch, 4, FloatingPointError("the loss is not finite at step 4"))
    done = train(recipes["gan"], 0, SCHEDULE, plan)
    assert done.problem == "the loss is not finite at step 4"
    assert read_checkpoint(done.checkpoint)["global_step"] == 3  # the end of the epoch before
    assert finished_training(recipes["gan"], 0, plan) == done
    stopped(monkeypatch, 1, FloatingPointError("the loss is not finite at step 1"))
    with pytest.raises(FloatingPointError, match="step 1"):  # there is nothing to measure
        train(recipes["gan"], 1, SCHEDULE, plan)


@pytest.mark.parametrize("disturbance", [0.0, 0.35], ids=["quiet", "disturbed"])
def test_calibration_measures_the_usual_pace_behind_the_warm_up(
    recipes: dict[str, str], plan: TrainingPlan, monkeypatch: pytest.MonkeyPatch, disturbance: float
) -> None:
    class Time(L.Callback):
        now = 0.0

        def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
            self.now += 0.1 if self.now < 0.15 else 0.05  # two slow steps, then 20 a second
            self.now += disturbance if trainer.global_step == 6 else 0.0

    time = Time()
    monkeypatch.setattr(training, "monotonic", lambda: time.now)
    monkeypatch.setattr(
        training, "start", lambda *a, callbacks, **o: commands.start(*a, callbacks=[time, *callbacks], **o)
    )
    schedule = calibrate(recipes["vae"], TrainingPlan(plan.folder, 0.1, plan.options))
    # 6 s of 20 steps/s are 120 steps, 12 times 10, of 20 images; evaluated after 600 images, not after 400
    assert schedule == Schedule(steps=120, batches_between_validations=10, images_between_evaluations=500)


def test_pace_counts_steps_of_the_optimizer(recipes: dict[str, str], plan: TrainingPlan) -> None:
    pace = Pace(0.05)
    arguments = ["--config", recipes["vae"], "--trainer.accumulate_grad_batches", "3", "--trainer.max_steps", "1000"]
    options = ["--trainer.default_root_dir", str(plan.folder), "--evaluate.at_end", "false", "--checkpoint.monitor"]
    commands.start("fit", [*arguments, *options, "null", *plan.options], callbacks=[pace], says_where=False)
    assert pace.images_per_step == 60
    assert pace.steps_per_second > 0
