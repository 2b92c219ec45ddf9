"""What optimizers and schedules of the learning rate are asked for, checked before anything is built or trained."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from math import isclose
from typing import Any

from lit_generative.checks import check_range
from lit_generative.description import factory_of

__all__ = ["build", "check_optimisation"]

POSITIVE = ("eps", "total_steps", "step_size", "T_max", "T_0", "total_iters", "div_factor", "final_div_factor")
NOT_NEGATIVE = ("lr", "max_lr", "base_lr", "weight_decay", "gamma", "eta_min", "start_factor", "end_factor")
RANGES: dict[str, dict[str, Any]] = {
    **{option: {"above": 0} for option in POSITIVE},
    **{option: {"at_least": 0} for option in NOT_NEGATIVE},
    **{option: {"at_least": 0, "below": 1} for option in ("betas", "momentum")},
    "pct_start": {"at_least": 0, "at_most": 1},
    "factor": {"above": 0, "below": 1},
}
OWN_RATES = ("base_lr", "max_lr")  # by which a schedule has learning rates of its own


def check_optimisation(
    make_optimizer: Callable[..., Any] | None, make_scheduler: Callable[..., Any] | None, network: str = ""
) -> None:
    """Refuse what no optimizer or schedule can take, and two different learning rates.

    Args:
        make_optimizer: What makes the optimizer; what a partial or a configuration says is checked.
        make_scheduler: The same for the schedule of its learning rate.
        network: Begins the names of both arguments, as in "generator_optimizer".

    Raises:
        ValueError: If a number is out of its range, or two differ that are to be one.
    """
    _check_options(f"{network}optimizer", make_optimizer)
    _check_options(f"{network}lr_scheduler", make_scheduler)
    _check_one_learning_rate(f"{network}optimizer", make_optimizer, make_scheduler)


def _check_options(name: str, make: Callable[..., Any] | None) -> None:
    """Refuse numbers that no optimizer or schedule can take, where a partial or a configuration says them.

    Args:
        name: The model's argument, such as "optimizer".
        make: What makes the optimizer or the schedule.

    Raises:
        ValueError: If a number is out of its range.
    """
    for option, value in getattr(make, "keywords", {}).items():
        is_list = isinstance(value, list | tuple)
        for i, one in enumerate(value if is_list else [value]):
            if option in RANGES and not isinstance(one, bool):
                check_range(f"{name}.{option}{f'[{i}]' if is_list else ''}", one, **RANGES[option])


def build(name: str, make: Callable[..., Any], argument: Any) -> Any:
    """Make an optimizer or a schedule; what torch refuses is said in one sentence that names the argument.

    Raises:
        ValueError: If torch refuses an option.
    """
    try:
        return make(argument)
    except ValueError as error:
        raise ValueError(f"{name}: {factory_of(make).__name__} refuses its options: {error}") from error


def _check_one_learning_rate(
    name: str, make_optimizer: Callable[..., Any] | None, make_scheduler: Callable[..., Any] | None
) -> None:
    """Refuse a schedule with a learning rate of its own beside an optimizer that was given another one.

    ``OneCycleLR`` and ``CyclicLR`` overwrite the optimizer's, which would be recorded and not followed. Where that is
    the default of the optimizer's class, which a configuration fills in, a warning says which counts.

    Args:
        name: The model's argument for the optimizer.
        make_optimizer: What makes it.
        make_scheduler: What makes the schedule.

    Raises:
        ValueError: If an ``lr`` that is not the default differs from the schedule's.
    """
    lr = getattr(make_optimizer, "keywords", {}).get("lr")
    asked = getattr(make_scheduler, "keywords", {})
    own = [rate for option in OWN_RATES for rate in _rates(asked.get(option))]
    if make_optimizer is None or make_scheduler is None or lr is None or not own:
        return
    if any(isclose(float(lr), rate) for rate in own):
        return
    schedule, optimizer = factory_of(make_scheduler).__name__, factory_of(make_optimizer)
    rates = " and ".join(f"{rate:g}" for rate in own)
    beside = f"{name}.lr={lr:g}, but {schedule} has a learning rate of its own, {rates}"
    default = inspect.signature(optimizer).parameters.get("lr")
    if default is None or lr != default.default:
        raise ValueError(f"{beside}: make them equal, or take OneCycle, whose peak is the optimizer's lr")
    warnings.warn(f"{beside}, which counts; the peak of OneCycle is the optimizer's lr", stacklevel=2)


def _rates(value: Any) -> Iterator[float]:
    if value is not None:
        yield from map(float, value if isinstance(value, list | tuple) else [value])
