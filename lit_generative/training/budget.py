"""Recipes trained for the same minutes each, with several seeds, and resumable.

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
from lit_generative.training.cli import TrainerCLI
from lit_generative.training.parser import resolve_recipes

__all__ = ["Pace", "TimedTraining", "Trained", "TrainingLength"]

VALIDATIONS = 12  # in a training
EVALUATIONS = 4  # of them, evaluated ones: at a quarter, half, three quarters and the end
WARM_UP = 0.2  # of a calibrating run, in which memory is found and kernels are chosen
MOST_CALIBRATION = 10.0  # seconds
SLICES = 5  # of what is behind the warm-up: their median pace counts, so that a short disturbance does not
FOR_EVER = str(10**9)


@dataclasses.dataclass(frozen=True)
class TrainingLength:
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
class Trained:
    """A finished training.

    Attributes:
        checkpoint: The last state.
        problem: Why it ended before its last step, for instance that a loss was not finite, or "".
    """

    checkpoint: Path
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class TimedTraining:
    """The trainings of one recipe, with a seed each, and their state in a folder: what is there is not done again.

    Attributes:
        recipe: Its name or file.
        minutes: Of training, for each seed.
        folder: Where the runs are: ``calibration/NAME``, ``seed_0/NAME``, ...
        options: Further options of ``fit``, of its data and evaluation.
    """

    recipe: str
    minutes: float
    folder: Path
    options: Sequence[str] = ()

    @property
    def name(self) -> str:
        """What ``fit`` calls the folder of the recipe's runs, for instance "vae/fashion"."""
        return resolve_recipes(["--config", self.recipe])[1][0]

    @property
    def is_calibrated(self) -> bool:
        """Whether it is known how many steps the minutes are."""
        return self._length_file.is_file()

    @property
    def calibrated(self) -> Path:
        """The checkpoint of the calibrating run, which says which data the recipe takes."""
        return next(_last_states(self._length_file.parent))

    def length(self) -> TrainingLength:
        """Return how long it is trained; a short run, in which the recipe is seen to work, finds it out at first."""
        if not self.is_calibrated:
            write_json(self._length_file, dataclasses.asdict(self._calibrate()))
        return TrainingLength(**json.loads(self._length_file.read_text()))

    @property
    def _length_file(self) -> Path:
        return self.folder / "calibration" / self.name / "length.json"

    def _calibrate(self) -> TrainingLength:
        """Train for some seconds, with a validation, an evaluation and a grid of samples, and measure the pace."""
        pace = Pace(min(MOST_CALIBRATION, max(1.0, 10 * self.minutes)))
        options = [
            *self._options(0, self.folder / "calibration"),
            *("--trainer.max_steps", FOR_EVER, "--trainer.val_check_interval", FOR_EVER),
            *("--trainer.limit_val_batches", "2", "--evaluate.every_n_images", "1"),
            *("--evaluation.num_samples", "100", "--evaluation.num_real", "200"),
        ]
        batches_a_step = TrainerCLI("fit", options, callbacks=[pace], says_where=False).trainer.accumulate_grad_batches
        gc.collect()  # trainer and model refer to each other
        steps = max(1, round(60 * self.minutes * pace.steps_per_second / VALIDATIONS))  # to the next validation
        between_evaluations = steps * VALIDATIONS / EVALUATIONS - steps / 2
        images = max(1, round(between_evaluations * pace.images_per_step))
        return TrainingLength(steps * VALIDATIONS, steps * batches_a_step, images)

    def train(self, seed: int) -> Trained:
        """Train with a seed of weights and noise, or go on with it, or find that it is done.

        Raises:
            FloatingPointError: If a loss is not finite before there is any checkpoint.
        """
        if (finished := self.finished(seed)) is not None:
            return finished
        length, folder = self.length(), self._seed_folder(seed)
        options = [
            *self._options(seed, self.folder / f"seed_{seed}"),
            *("--trainer.max_steps", str(length.steps)),
            *("--trainer.val_check_interval", str(length.batches_between_validations)),
            *("--evaluate.every_n_images", str(length.images_between_evaluations)),
        ]
        last, problem = next(_last_states(folder), None), ""
        try:
            TrainerCLI("fit", options + ([] if last is None else ["--ckpt_path", str(last)]), says_where=False)
        except FloatingPointError as error:
            problem = str(error)
            if next(_last_states(folder), None) is None:
                raise
        gc.collect()
        checkpoint = next(_last_states(folder))
        write_json(folder / "finished.json", {"checkpoint": str(checkpoint.relative_to(folder)), "problem": problem})
        return Trained(checkpoint, problem)

    def finished(self, seed: int) -> Trained | None:
        """Return a training that is done, or None if it is not."""
        file = self._seed_folder(seed) / "finished.json"
        if not file.is_file():
            return None
        found = json.loads(file.read_text())
        return Trained(file.parent / found["checkpoint"], found["problem"])

    def _seed_folder(self, seed: int) -> Path:
        return self.folder / f"seed_{seed}" / self.name

    def _options(self, seed: int, root: Path) -> list[str]:
        """Return what every run has: one device, so that minutes are comparable, neither loggers nor a best state."""
        return [
            *("--config", self.recipe, *self.options, "--seed_everything", str(seed)),
            *("--trainer.default_root_dir", str(root), "--trainer.devices", "1", "--trainer.num_nodes", "1"),
            *("--trainer.logger", "false", "--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "null"),
            *("--trainer.max_time", "null", "--checkpoint.monitor", "null", "--checkpoint.save_top_k", "0"),
            *("--evaluate.every_n_epochs", "null", "--evaluate.at_end", "false", "--grid.every_n_epochs", "1"),
            *("--trainer.enable_progress_bar", str(sys.stderr.isatty()).lower()),
        ]


def _last_states(folder: Path) -> Iterator[Path]:
    """Yield the last states of a run's versions, the latest first, without damaged ones."""
    saved = folder.glob("version_*/checkpoints/last.ckpt")
    for path in sorted(saved, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            read_checkpoint(path, map_location="meta")
        except ValueError:
            continue
        yield path


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
