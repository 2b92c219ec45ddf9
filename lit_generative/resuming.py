"""What a resumed run takes from its checkpoint, and what from its configuration, where the two differ.

Lightning restores optimizers and learning-rate schedules as they were saved, so that a changed option would be recorded
but not followed. Here what was asked for is what happens, or it is refused before the first step.
"""

import copy
import warnings
from math import ceil
from typing import Any

import lightning as L
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_generative.budgets import advance, budget_of, place

__all__ = ["RESUMED", "Changes", "steps_in_all"]

RESUMED = ("lit_generative", "lr_schedulers", "loops", "global_step")  # what of a checkpoint has to be known here
CLASSES = ("class_path", "partial", "import_path")


class Changes:
    """The optimizers and schedules of a resumed run, as its configuration has them.

    It is made after they were built and before they are restored.

    Args:
        trainer: Whose they are.
        saved: What the checkpoint says of the model: its class and arguments.
        asked: The same of the model that goes on.
        saved_schedules: The states of the schedules in the checkpoint.
        steps: How many steps were taken by then.

    Raises:
        ValueError: If what was asked for does not go with what was saved: an optimizer or a schedule of another class,
            or a training that is shorter than what was done.
    """

    def __init__(
        self,
        trainer: L.Trainer,
        saved: dict[str, Any],
        asked: dict[str, Any],
        saved_schedules: list[dict[str, Any]],
        steps: int,
    ) -> None:
        self.trainer = trainer
        self.steps = steps
        self.saved_schedules = saved_schedules
        before, now = (_of_optimisation(description["init_args"]) for description in (saved, asked))
        _check_classes(before, now)
        self._groups = [[_options(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        self._schedules = [copy.deepcopy(c.scheduler.state_dict()) for c in trainer.lr_scheduler_configs]
        self._check_lengths()
        lengths = [(old.get("total_steps"), new.get("total_steps")) for old, new in self._pairs()]
        self.is_different = before != now or any(old != new for old, new in lengths) or bool(budget_of(trainer))

    def _pairs(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return list(zip(self.saved_schedules, self._schedules, strict=False))

    def _steps(self, old: dict[str, Any], new: dict[str, Any]) -> int:
        """Return how many steps a schedule has to have taken; one of another length does not tell."""
        budget = budget_of(self.trainer)
        follows = [] if budget is None else [schedule.total_steps for schedule in budget.schedules]
        if new.get("total_steps") in follows:
            return place(self.trainer)
        if old.get("total_steps") != new.get("total_steps"):
            return self.steps
        return old.get("last_epoch", 0)

    def _check_lengths(self) -> None:
        for old, new in self._pairs():
            steps, total = self._steps(old, new), new.get("total_steps")
            if total is not None and steps > total:
                raise ValueError(
                    f"the run has taken {steps:,} steps, and its schedule of the learning rate would now end after "
                    f"{total:,}: raise trainer.max_epochs or trainer.max_steps"
                )

    def follow(self) -> None:
        """Give the restored optimizers the options that were asked for, and bring new schedules to the present step."""
        if not self.is_different:
            return
        for optimizer, groups in zip(self.trainer.optimizers, self._groups, strict=True):
            for group, options in zip(optimizer.param_groups, groups, strict=True):
                group.update(options)
        for config, (old, new) in zip(self.trainer.lr_scheduler_configs, self._pairs(), strict=True):
            scheduler = config.scheduler
            if isinstance(scheduler, ReduceLROnPlateau):  # which knows the course of a metric, and no length
                continue
            scheduler.load_state_dict(new)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it does not see the optimizer step
                advance(scheduler, self._steps(old, new))


def steps_in_all(checkpoint: dict[str, Any], trainer: L.Trainer, planned: int) -> int:
    """Return how many steps a resumed run will have taken at its end.

    Args:
        checkpoint: What it goes on from.
        trainer: Its batches are counted already.
        planned: The steps of all its epochs, with today's batch size; those that are done had perhaps another one.
    """
    if planned == trainer.max_steps:
        return planned
    loops = checkpoint["loops"]["fit_loop"]
    epochs = loops["epoch_progress"]["current"]
    is_between = epochs["ready"] == epochs["processed"]
    batches = 0 if is_between else loops["epoch_loop.batch_progress"]["current"]["processed"]
    accumulated = trainer.accumulate_grad_batches
    done = epochs["processed"] * ceil(trainer.num_training_batches / accumulated) + batches // accumulated
    return planned - done + checkpoint["global_step"]


def _of_optimisation(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what decides optimizers and schedules; what is not given is left to a default."""
    names = ("optimizer", "lr_scheduler")
    return {k: v for k, v in arguments.items() if k.endswith(names) and v is not None}


def _check_classes(before: dict[str, Any], now: dict[str, Any]) -> None:
    for name in sorted(before.keys() | now.keys()):
        old, new = _class_of(before.get(name)), _class_of(now.get(name))
        if old != new:
            raise ValueError(
                f"{name} is {new or 'the default'}, but the checkpoint was saved with {old or 'the default'}, whose "
                "state it cannot take over: go on with the former, or begin a new run"
            )


def _class_of(description: Any) -> str:
    if not isinstance(description, dict):
        return ""
    return next((str(description[key]).rpartition(".")[2] for key in CLASSES if key in description), "")


def _options(group: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a parameter group, without its parameters."""
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}
