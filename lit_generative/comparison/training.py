"""Training recipes for a comparison: each for the same minutes, with several seeds, and resumable.

The minutes are those of training alone. A schedule of the learning rate has to know its end, so that the minutes become
steps once, by a short calibrating run; all seeds, and the runs that go on after a stop, take the same number of them.
"""

import dataclasses
import gc
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import lightning as L

from lit_generative.checkpoints import read_checkpoint
from lit_generative.files import write_json
from lit_generative.training.cli import start
from lit_generative.training.parser import resolve_recipes

__all__ = ["Pace", "Schedule", "Trained", "TrainingPlan", "calibrate", "train"]

VALIDATIONS = 12  # in a training
EVALUATIONS = 4  # of them, evaluated ones: at a quarter, half, three quarters and the end
WARM_UP = 0.2  # of a calibrating run, in which memory is found and kernels are chosen
MOST_CALIBRATION = 10.0  # seconds
SLICES = 5  # of what is behind the warm-up: their median pace counts, so that a short disturbance does not


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How long a recipe is trained, so that it takes the minutes asked for.

    Attributes:
        steps: Those of the optimizer; a GAN's are rounds of both networks.
        batches_between_validations: So that there are ``VALIDATIONS``, the last after the last step.
        images_between_evaluations: Fewer than are between two evaluations, more than between those and a validation.
    """

    steps: int
    batches_between_validations: int
    images_between_evaluations: int


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """What all trainings of a comparison have in common.

    Attributes:
        folder: Where they are.
        minutes: Of training, for each.
        options: Further options of ``fit``, of its data and evaluation.
    """

    folder: Path
    minutes: float
    options: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        checkpoint: The last state.
        problem: Why it ended before its last step, for instance that a loss was not finite, or "".
    """

    checkpoint: Path
    problem: str = ""


class Pace(L.Callback):
    """Ends a training after some seconds, and measures steps and images a second behind a warm-up.

    Args:
        seconds: How long.

    Attributes:
        steps_per_second: Of the optimizer.
        images_per_step: Training images.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.steps_per_second = 0.0
        self.images_per_step = 0.0
        self._start = 0.0
        self._steps = 0
        self._marks: list[tuple[int, int, float]] = []  # steps, images and seconds after each step behind the warm-up

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start."""
        self._start = monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, and stop the trainer when the time is over."""
        steps, images = trainer.global_step, int(pl_module.images_seen)  # type: ignore[arg-type]
        seconds = monotonic() - self._start
        is_step, self._steps = steps > self._steps, steps  # not each batch is one, where gradients are accumulated
        if not is_step or seconds < WARM_UP * self.seconds:
            return
        self._marks.append((steps, images, seconds))
        if seconds >= self.seconds and len(self._marks) > 1:
            self._measure()
            trainer.should_stop = True

    def _measure(self) -> None:
        bounds = self._marks[:: max(1, len(self._marks) // SLICES)]
        self.steps_per_second = median((b[0] - a[0]) / (b[2] - a[2]) for a, b in pairwise(bounds))
        (first_steps, first_images, _), (steps, images, _) = self._marks[0], self._marks[-1]
        self.images_per_step = (images - first_images) / (steps - first_steps)


def calibrate(recipe: str, plan: TrainingPlan) -> Schedule:
    """Train a recipe for some seconds, with a validation, an evaluation and a grid of samples: it is seen to work.

    The run is kept in ``plan.folder / "calibration"``; its checkpoint says which data the recipe takes.

    Returns:
        The schedule that makes ``plan.minutes`` of the pace that was measured.
    """
    pace = Pace(min(MOST_CALIBRATION, max(1.0, 10 * plan.minutes)))
    for_ever = str(10**9)
    options = [
        *_options(recipe, 0, calibration_folder(plan), plan),
        *(
            "--trainer.max_steps",
            for_ever,
            "--trainer.val_check_interval",
            for_ever,
            "--trainer.limit_val_batches",
            "2",
        ),
        *("--evaluate.every_n_images", "1", "--evaluation.num_samples", "100", "--evaluation.num_real", "200"),
    ]
    cli = start("fit", options, callbacks=[pace], says_where=False)
    rounds = max(1, round(60 * plan.minutes * pace.steps_per_second / VALIDATIONS))
    images = rounds * pace.images_per_step * VALIDATIONS / EVALUATIONS
    batches = rounds * cli.trainer.accumulate_grad_batches
    del cli
    gc.collect()
    return Schedule(rounds * VALIDATIONS, batches, max(1, round(images - rounds * pace.images_per_step / 2)))


def train(recipe: str, seed: int, schedule: Schedule, plan: TrainingPlan) -> Trained:
    """Train a recipe, or go on with it, or find that it is done.

    Args:
        recipe: Its name or file.
        seed: That of weights and noise.
        schedule: What :func:`calibrate` returned.
        plan: What is the same for all.

    Raises:
        FloatingPointError: If a loss is not finite before there is any checkpoint.
    """
    root = seed_folder(plan, seed)
    folder = root / run_name(recipe)
    if (finished := finished_training(recipe, seed, plan)) is not None:
        return finished
    options = [
        *_options(recipe, seed, root, plan),
        *("--trainer.max_steps", str(schedule.steps)),
        *("--trainer.val_check_interval", str(schedule.batches_between_validations)),
        *("--evaluate.every_n_images", str(schedule.images_between_evaluations)),
    ]
    last, problem = next(checkpoints(folder), None), ""
    try:
        start("fit", options + ([] if last is None else ["--ckpt_path", str(last)]), says_where=False)
    except FloatingPointError as error:
        problem = str(error)
        if next(checkpoints(folder), None) is None:
            raise
    gc.collect()  # trainer and model refer to each other
    trained = Trained(next(checkpoints(folder)), problem)
    write_json(
        folder / "finished.json", {"checkpoint": str(trained.checkpoint.relative_to(folder)), "problem": problem}
    )
    return trained


def finished_training(recipe: str, seed: int, plan: TrainingPlan) -> Trained | None:
    """Return a training that is done, or None if it is not."""
    folder = seed_folder(plan, seed) / run_name(recipe)
    if not (folder / "finished.json").is_file():
        return None
    found = json.loads((folder / "finished.json").read_text())
    return Trained(folder / found["checkpoint"], found["problem"])


def checkpoints(folder: Path) -> Iterator[Path]:
    """Yield the last states of a run's versions, the latest first, without damaged ones."""
    saved = folder.glob("version_*/checkpoints/last.ckpt")
    for path in sorted(saved, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            read_checkpoint(path, map_location="meta")
        except ValueError:
            continue
        yield path


def seed_folder(plan: TrainingPlan, seed: int) -> Path:
    """Return the root of the runs of one seed."""
    return plan.folder / f"seed_{seed}"


def calibration_folder(plan: TrainingPlan) -> Path:
    """Return the root of the calibrating runs."""
    return plan.folder / "calibration"


def run_name(recipe: str) -> str:
    """Return what ``fit`` calls the folder of a recipe's runs, for instance "vae/fashion"."""
    return resolve_recipes(["--config", recipe])[1][0]


def _options(recipe: str, seed: int, root: Path, plan: TrainingPlan) -> list[str]:
    """Return what every run has: one device, so that minutes are comparable, and neither loggers nor a best state."""
    return [
        *("--config", recipe, *plan.options, "--seed_everything", str(seed)),
        *("--trainer.default_root_dir", str(root), "--trainer.devices", "1", "--trainer.num_nodes", "1"),
        *("--trainer.logger", "false", "--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "null"),
        *("--trainer.max_time", "null", "--checkpoint.monitor", "null", "--checkpoint.save_top_k", "0"),
        *("--evaluate.every_n_epochs", "null", "--evaluate.at_end", "false", "--grid.every_n_epochs", "1"),
        *("--trainer.enable_progress_bar", str(sys.stderr.isatty()).lower()),
    ]
