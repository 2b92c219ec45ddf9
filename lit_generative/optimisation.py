"""Optimizers and schedules as a trainer takes them: what depends on its length, its precision and its resuming."""

import functools
import inspect
from collections.abc import Iterable
from typing import Any

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from lit_generative.budgets import TICKS, budget_of
from lit_generative.description import factory_of
from lit_generative.optim import build
from lit_generative.precision import raise_eps
from lit_generative.resuming import steps_in_all

__all__ = ["make_optimizer", "make_schedule"]


def make_optimizer(make: OptimizerCallable, parameters: Iterable[nn.Parameter], trainer: L.Trainer) -> Optimizer:
    """Make an optimizer that works with the trainer's other options.

    Torch marks fused optimizers as unscaling gradients by themselves, which goes with no clipping; but unless there is
    a scaler, under 16-mixed, there is nothing to unscale. And Adam's usual ``eps`` is 0 as a number of 16-true.
    """
    optimizer = build("optimizer", make, parameters)
    if getattr(trainer.precision_plugin, "scaler", None) is None:
        optimizer._step_supports_amp_scaling = False
    raise_eps(optimizer)
    return optimizer


def make_schedule(
    make: LRSchedulerCallable, optimizer: Optimizer, trainer: L.Trainer, before: dict[str, Any] | None
) -> LRSchedulerConfigType:
    """Return Lightning's description of a schedule that advances every step of ``optimizer``.

    Args:
        make: Makes it; a ``total_steps`` that it takes and was not given is filled in. Under a budget of minutes or
            images, the schedule follows the share of it that is over.
        optimizer: Whose learning rate it is.
        trainer: Which knows the length.
        before: The checkpoint that the run goes on from; None: it begins.

    Raises:
        ValueError: If the schedule spans the whole training but the trainer's length is not known.
    """
    budget = budget_of(trainer)
    takes_total_steps = "total_steps" in inspect.signature(factory_of(make)).parameters
    is_to_fill_in = takes_total_steps and getattr(make, "keywords", {}).get("total_steps") is None
    if is_to_fill_in and budget is not None:
        make = functools.partial(make, total_steps=TICKS)  # type: ignore[call-arg]
    elif is_to_fill_in:
        steps = trainer.estimated_stepping_batches
        # which has set up the training loader, before its place in the epoch is restored; let fit do it again
        trainer.fit_loop._combined_loader = None
        if steps == float("inf"):
            raise ValueError("lr_scheduler needs total_steps: give it, or trainer.max_epochs or trainer.max_steps")
        steps = int(steps) if before is None else steps_in_all(before, trainer, int(steps))
        make = functools.partial(make, total_steps=steps)  # type: ignore[call-arg]
    scheduler = build("lr_scheduler", make, optimizer)
    if is_to_fill_in and budget is not None:
        budget.schedules.append(scheduler)
    if isinstance(scheduler, ReduceLROnPlateau):
        monitor = str(getattr(scheduler, "monitor", "val/loss"))  # torch's own does not say
        interval, frequency = _when_measured(monitor, trainer)
        return {"scheduler": scheduler, "monitor": monitor, "interval": interval, "frequency": frequency}
    return {"scheduler": scheduler, "interval": "step"}


def _when_measured(metric: str, trainer: L.Trainer) -> tuple[str, int]:
    """Return how often a metric is there to be looked at, as Lightning describes it."""
    if metric.startswith("train/"):
        return "epoch", 1
    epochs = trainer.check_val_every_n_epoch
    if epochs is None:  # validation goes by steps
        return "step", int(trainer.val_check_interval)  # type: ignore[arg-type]
    return "epoch", epochs
