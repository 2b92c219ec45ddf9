"""What is about to be trained, how long it will take, and what came of it."""

from math import inf, isfinite
from time import monotonic
from typing import Any

import lightning as L

from lit_generative.budgets import budget_of
from lit_generative.callbacks.clock import TrainingClock
from lit_generative.callbacks.plan import (
    amount,
    duration,
    memory_in_use,
    outcome,
    plan,
    seconds_allowed,
    shortness,
    total_steps,
)
from lit_generative.core import GenerativeModule

__all__ = ["Outlook"]

WARM_UP = 2  # steps in which memory is found and kernels are chosen
ENOUGH_SECONDS, ENOUGH_STEPS = 5.0, 5  # of training behind them, from which a pace is told
LONG = 60.0  # seconds after which fewer steps have to do
QUALITY = "evaluation/frechet_distance"


class Outlook(L.Callback):
    """Says what is planned when a training starts, after its first steps how long it will take, and what came of it.

    The pace is that of the steps of this training, validation and evaluation not counted; nothing is told of a training
    that is over before it can be measured.
    """

    def __init__(self) -> None:
        self._start: tuple[int, float] | None = None  # the step and the time behind the warm-up
        self._paused = 0.0  # seconds of validation since then
        self._validation_began = 0.0
        self._has_told = False
        self._first_step = 0
        self._course: dict[str, list[float]] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what is planned."""
        self.__init__()  # type: ignore[misc]  # a second training begins anew
        self._first_step = trainer.global_step
        _say(trainer, "\n".join(plan(trainer, pl_module)))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, and say once how long it will take."""
        step = trainer.global_step
        if self._has_told or step - self._first_step < WARM_UP:
            return
        if self._start is None:
            self._start, self._paused = (step, monotonic()), 0.0
            return
        steps, seconds = step - self._start[0], monotonic() - self._start[1] - self._paused
        is_enough = seconds >= ENOUGH_SECONDS and (steps >= ENOUGH_STEPS or seconds >= LONG)
        if is_enough and steps > 0:
            self._has_told = True
            if left := _left(trainer, steps / seconds, _images_per_step(pl_module, step)):
                _say(trainer, left)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._validation_began = monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let it go on, and note how good the model is by now."""
        self._paused += monotonic() - self._validation_began
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        is_measure = isinstance(pl_module, GenerativeModule) and pl_module.loss_is_quality
        for name in (QUALITY, *(["val/loss"] if is_measure else [])):
            value = trainer.callback_metrics.get(name)
            if value is not None and isfinite(value):
                values = self._course.setdefault(name, [])
                values += [float(value)] if not values or values[-1] != float(value) else []

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what came of it, below the table of the last evaluation."""
        if not isinstance(pl_module, GenerativeModule) or pl_module.images_seen == (pl_module.resumed_at or 0):
            return
        clocks = [c for c in trainer.callbacks if isinstance(c, TrainingClock)]  # type: ignore[attr-defined]
        measured = sorted(self._course.items(), key=lambda item: (len(item[1]) > 3, item[0] == QUALITY))
        name, course = measured[-1] if measured else ("", [])
        seconds = clocks[0].seconds if clocks else None
        _say(trainer, outcome(trainer, pl_module.images_seen, seconds, name, course))


def _say(trainer: L.Trainer, line: str) -> None:
    if not trainer.is_global_zero:
        return
    bar = trainer.progress_bar_callback
    if bar is not None and bar.is_enabled:  # type: ignore[attr-defined]
        bar.print(line)
    else:
        print(line, flush=True)


def _images_per_step(model: L.LightningModule, step: int) -> float | None:
    return model.images_seen / step if isinstance(model, GenerativeModule) and step else None


def _left(trainer: L.Trainer, pace: float, images_per_step: float | None) -> str:
    """Return how long the training will take at a pace in steps a second; "" if it is over."""
    total, allowed = total_steps(trainer), seconds_allowed(trainer)
    steps = total - trainer.global_step
    by_steps = steps / pace
    speed = f"{pace:.3g} steps/s" if pace >= 0.1 else f"{1 / pace:.3g} s a step"
    memory = memory_in_use(trainer.strategy.root_device)
    if steps <= 0:
        return ""
    if allowed is not None and allowed < by_steps:
        return f"{duration(allowed)} left, by trainer.max_time, at {speed}"
    if by_steps == inf:
        return f"{speed}; how many are left is not known"
    left = f"about {duration(by_steps)} of training left at {speed}; validation and evaluation come on top{memory}"
    if budget_of(trainer) is None or images_per_step is None:
        return left
    seen = total * images_per_step
    short = shortness(trainer, seen)
    return f"{left}\nabout {total:,.0f} steps{amount(trainer, seen)}" + (f"\n{short}" if short else "")
