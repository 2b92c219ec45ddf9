"""Trainings whose length is no number of steps: which share of one is over, and schedules that follow it."""

from abc import ABC, abstractmethod
from math import inf
from typing import Any

import lightning as L

__all__ = ["TICKS", "TrainingBudget", "advance", "budget_of", "place", "share_of_training"]

TICKS = 10_000  # steps of a schedule that follows a share: few enough to be taken, enough to be smooth


class TrainingBudget(L.Callback, ABC):
    """What decides how long a training is where that is no number of steps, but minutes or images.

    Attributes:
        is_active: Whether it decides anything.
        plans_evaluations: Whether it also says when samples are evaluated.
        evaluates_now: Whether it wants an evaluation at the present validation.
        schedules: Those of the learning rate that follow the share of the training that is over.
    """

    is_active: bool = True
    plans_evaluations: bool = False
    evaluates_now: bool = False
    schedules: list[Any]

    @abstractmethod
    def share(self, trainer: L.Trainer) -> float:
        """Return the share of the training that is over, in [0, 1], the same in each process; 1: it ends."""


def budget_of(trainer: L.Trainer) -> TrainingBudget | None:
    """Return the budget that decides how long a training is; None: steps or epochs do."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((c for c in callbacks if isinstance(c, TrainingBudget) and c.is_active), None)


def share_of_training(trainer: L.Trainer) -> float | None:
    """Return the share of a training that is over, in [0, 1]; None: its length is not known."""
    if (budget := budget_of(trainer)) is not None:
        return budget.share(trainer)
    steps = trainer.estimated_stepping_batches  # -1 and infinity: not known
    return trainer.global_step / steps if 0 < steps < inf else None


def place(trainer: L.Trainer) -> int:
    """Return at which of ``TICKS`` a schedule is that follows the budget: 0 at the first step, the end at the last.

    After k of K steps, the share k / K of the training is over. Of the steps that follow, the first is number k of
    0, ..., K - 1, so that a schedule that ends with the last step has k / (K - 1) of it behind it.
    """
    budget, step = budget_of(trainer), trainer.global_step
    share = 0.0 if budget is None else budget.share(trainer)
    behind = share * step / (step - share) if step > share else share
    return round(min(1.0, behind) * (TICKS - 1))


def advance(scheduler: Any, to: int) -> None:
    """Let a schedule take steps up to a place; it never goes back."""
    while scheduler.last_epoch < to:
        scheduler.step()
