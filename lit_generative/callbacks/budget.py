"""Trainings of so many minutes or images: the length is steered while they run."""

import re
from math import inf
from time import monotonic
from typing import Any

import lightning as L
import torch

from lit_generative.budgets import TrainingBudget
from lit_generative.callbacks.clock import TrainingClock
from lit_generative.checks import check_count, check_range

__all__ = ["Budget", "number_of_images"]

WARM_UP = 2  # steps in which memory is found and kernels are compiled: they tell nothing of the pace
FOR_EVER = 10**9  # batches
UNLIMITED = (None, -1, 1000)  # epochs, the last of which Lightning fills in
IN_BETWEEN = 0.2  # of the minutes so far that evaluations before the end may take
FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class Budget(TrainingBudget):
    """Ends a training after so many minutes or images, and stretches to that all that follows the training.

    Minutes are those of :class:`~lit_generative.callbacks.TrainingClock`: validation and evaluation come on top. They
    are compared with the clock at each step, not converted into steps beforehand, so that a machine that gets slower or
    faster meanwhile changes how many steps there are, and not how long they take. What follows the share of the
    training that is over (schedules of the learning rate that take ``total_steps``, ``AutoGuidance``, regularisers of a
    ``share``) follows the clock as well. A resumed run has what is left.

    Args:
        minutes: Of training, in all.
        images: Training images in all, counted again each time that they are seen; such as 500_000, "500k" or "2M".
        validations: How many there are, the last one after the last step; None leaves them to the trainer's options.
        evaluations: How many of them evaluate samples, too; None leaves that to the options of ``evaluate``. Under
            minutes, those before the last are left out where they would take more than a fifth of the time so far.

    Raises:
        ValueError: If both lengths are given, one is no positive number, or the trainer has another one.
    """

    def __init__(
        self,
        minutes: float | None = None,
        images: int | str | None = None,
        validations: int | None = 12,
        evaluations: int | None = 4,
    ) -> None:
        check_range("minutes", minutes, above=0, hint="it is the time of training, such as 10")
        self.minutes, self.images = minutes, number_of_images(images)
        if minutes is not None and self.images is not None:
            raise ValueError(f"minutes={minutes:g} and images={images}: a training has one length; give one of them")
        for name, value in {"validations": validations, "evaluations": evaluations}.items():
            check_count(name, value, hint="null leaves it to other options")
        self.validations, self.evaluations = validations, evaluations
        self.is_active = minutes is not None or self.images is not None
        self.schedules = []
        self._clock: TrainingClock | None = None
        self._share = self._first_share = 0.0
        self._measured_at = self._first_step = -1  # steps
        self._base: tuple[int, float] | None = None  # step and seconds behind the warm-up
        self._due = 0  # validations so far
        self._evaluating = _Stopwatch()
        self._saved: dict[str, Any] = {}

    @property
    def plans_evaluations(self) -> bool:  # type: ignore[override]
        """Whether it says when samples are evaluated."""
        return self.is_active and self.evaluations is not None and self.validations is not None

    @property
    def limit(self) -> dict[str, float]:
        """What the training is given, by what it is counted in; {}: nothing."""
        given = {"minutes": self.minutes, "images": self.images}
        return {name: value for name, value in given.items() if value is not None}

    # ---------------------------------------------------------------- before the training

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the length of the training, and the times of validation, out of the trainer's hands."""
        is_dry_run = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        self.is_active = bool(self.limit) and not is_dry_run
        if stage != "fit" or not self.is_active:
            return
        for option, unlimited in {"max_epochs": UNLIMITED, "max_steps": (-1,)}.items():
            if (value := getattr(trainer, option)) not in unlimited:
                limit = ", ".join(f"{name}={value:g}" for name, value in self.limit.items())
                raise ValueError(f"{limit} and trainer.{option}={value}: a training has one length; give one of them")
        trainer.fit_loop.max_epochs = -1
        if self.validations is not None:
            trainer.check_val_every_n_epoch, trainer.val_check_interval = None, FOR_EVER
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self._clock = next((c for c in callbacks if isinstance(c, TrainingClock)), None)
        if self._clock is None:
            callbacks.insert(0, clock := TrainingClock())
            self._clock = clock
        self.schedules, self._base, self._saved, self._share = [], None, {}, 0.0
        self._measured_at, self.evaluates_now, self._evaluating = -1, False, _Stopwatch()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look how much is over of a run that goes on, and end it at once if that is all."""
        if not self.is_active:
            return
        is_same = self._saved.get("limit") == self.limit
        self._first_share = self._saved["share"] if is_same else min(1.0, self._used(trainer, pl_module))
        trainer.should_stop = self._first_share >= 1
        self._share, self._due = self._first_share, self._due_at(self._first_share)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to measure."""
        self._first_step = self._measured_at = trainer.global_step

    # ---------------------------------------------------------------- while it runs

    def share(self, trainer: L.Trainer) -> float:
        """Return the share of the training that is over, in [0, 1]; it is measured once behind each step."""
        if self._measured_at not in (-1, trainer.global_step):
            self._measured_at = trainer.global_step
            self._share = min(1.0, max(self._share, self._measure(trainer)))
        return self._share

    def total_steps(self, trainer: L.Trainer) -> float:
        """Return how many steps the training will have at its present pace; inf before that is known."""
        share, first, base = self.share(trainer), 0.0, 0
        if self.minutes is not None:
            if self._base is None:
                return inf
            first, (base, _) = self._first_share, self._base
        return base + (trainer.global_step - base) * (1 - first) / (share - first) if share > first else inf

    def _used(self, trainer: L.Trainer, model: L.LightningModule) -> float:
        """Return how much of the minutes or images is used up, as a share of them."""
        if self.images is not None:
            return float(model.images_seen) / self.images  # type: ignore[arg-type, operator]
        assert self._clock is not None
        assert self.minutes is not None
        if self._clock.seconds is None:
            raise ValueError(
                f"minutes={self.minutes:g}: the checkpoint does not say how long it was trained; give images instead"
            )
        return self._clock.seconds / (60 * self.minutes)

    def _measure(self, trainer: L.Trainer) -> float:
        """Measure the share; under minutes, of what is left behind the warm-up, which may take long and tells nothing.

        The last step is the one that ends nearest to the minutes.
        """
        if self.images is not None:
            return self._used(trainer, trainer.lightning_module)
        assert self._clock is not None
        assert self.minutes is not None
        step, now, end = trainer.global_step, self._seconds(trainer), 60 * self.minutes
        if self._base is None:
            if step - self._first_step >= WARM_UP:
                self._base = (step, now)
            return 1.0 if now >= end else self._first_share
        base_step, base = self._base
        if now + (now - base) / (step - base_step) / 2 >= end:
            return 1.0
        return self._first_share + (1 - self._first_share) * (now - base) / (end - base)

    def _seconds(self, trainer: L.Trainer) -> float:
        """Return the seconds of training so far, the mean of the processes: all have to end at the same step."""
        assert self._clock is not None
        now = self._clock.read()
        if trainer.world_size == 1:
            return now
        of_all = trainer.strategy.reduce(torch.tensor(now, device=trainer.strategy.root_device), reduce_op="mean")
        return float(of_all)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the training if it is time, and let Lightning validate behind this batch if that is due."""
        if not self.is_active:
            return
        share = self.share(trainer)
        if self.validations is not None:
            is_due = (number := self._due_at(share)) > self._due
            if is_due:
                per_evaluation = self.validations / (self.evaluations or self.validations)
                is_planned = number // per_evaluation > self._due // per_evaluation
                self.evaluates_now = is_planned and (share >= 1 or self._can_afford(trainer))
                self._due = number
            trainer.val_check_batch = trainer.fit_loop.total_batch_idx + 1 if is_due else FOR_EVER
        trainer.should_stop = trainer.should_stop or share >= 1

    def _can_afford(self, trainer: L.Trainer) -> bool:
        """Return whether there is time for an evaluation before the end, the same in each process."""
        if self.minutes is None:
            return True
        assert self._clock is not None
        is_cheap = self._evaluating.total + self._evaluating.latest <= IN_BETWEEN * self._clock.read()
        return bool(trainer.strategy.broadcast(is_cheap))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to measure how long an evaluation takes."""
        self._evaluating.start()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add it up."""
        if self.evaluates_now:
            self._evaluating.stop()

    def _due_at(self, share: float) -> int:
        """Return how many validations are due by a share of the training."""
        return int(share * (self.validations or 0) + 1e-9)

    # ---------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return how much is over, and of what."""
        return {"share": self._share, "limit": self.limit} if self.is_active else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint has; it is used when fitting starts."""
        self._saved = state_dict


class _Stopwatch:
    """Adds up the seconds between ``start`` and ``stop``."""

    def __init__(self) -> None:
        self.total = self.latest = self._started = 0.0

    def start(self) -> None:
        self._started = monotonic()

    def stop(self) -> None:
        self.latest = monotonic() - self._started
        self.total += self.latest


def number_of_images(given: int | str | None) -> int | None:
    """Return a number of images, which may be written as 500_000, "500k" or "2M"; None of None.

    Raises:
        ValueError: If it is no positive number.
    """
    if given is None:
        return None
    text = str(given).strip().replace("_", "")
    found = re.fullmatch(r"(\d+(?:\.\d*)?(?:[eE]\+?\d+)?)([kKmMgG]?)", text)
    images = round(float(found[1]) * FACTORS[found[2].lower()]) if found and not isinstance(given, bool) else 0
    if images < 1:
        raise ValueError(f"images={given}: it must be a positive number of images, such as 500_000, 500k or 2M")
    return images
