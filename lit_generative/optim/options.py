"""What optimizers and schedules of the learning rate are asked for, checked before anything is built or trained."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from math import isclose
from typing import Any

from torch.optim import Optimizer

from lit_generative.checks import check_range
from lit_generative.description import factory_of

__all__ = ["build", "check_one_learning_rate", "check_options"]

POSITIVE = ("eps", "total_steps", "step_size", "T_max", "T_0", "total_iters", "div_factor", "final_div_factor")
NOT_NEGATIVE = ("lr", "max_lr", "base_lr", "weight_decay", "gamma", "eta_min", "start_factor", "end_factor")
RANGES: dict[str, dict[str, float]] = {
    **{option: {"above": 0} for option in POSITIVE},
    **{option: {"at_least": 0} for option in NOT_NEGATIVE},
    **{option: {"at_least": 0, "below": 1} for option in ("betas", "momentum")},
    "pct_start": {"at_least": 0, "at_most": 1},
    "factor": {"above": 0, "below": 1},
}
OWN_RATES = ("base_lr", "max_lr")  # by which a schedule has learning rates of its own


def check_options(name: str, make: Callable[..., Any] | None) -> None:
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


def check_one_learning_rate(make: Callable[..., Any], optimizer: Optimizer) -> None:
    """Refuse a schedule with a learning rate of its own beside an optimizer that was given another one.

    ``OneCycleLR`` and ``CyclicLR`` overwrite the optimizer's, which would be recorded and not followed. Where that is
    the default of the optimizer's class, a warning says which counts.

    Args:
        make: What makes the schedule.
        optimizer: The optimizer that it is for.

    Raises:
        ValueError: If an ``lr`` that is not the default differs from the schedule's.
    """
    own = [rate for option in OWN_RATES for rate in _rates(getattr(make, "keywords", {}).get(option))]
    default = inspect.signature(type(optimizer).__init__).parameters.get("lr")
    for lr in (float(group["lr"]) for group in optimizer.param_groups) if own else ():
        if any(isclose(lr, rate) for rate in own):
            continue
        schedule, rates = factory_of(make).__name__, " and ".join(f"{rate:g}" for rate in own)
        beside = f"lr={lr:g} of {type(optimizer).__name__}, but {schedule} has a learning rate of its own, {rates}"
        if default is None or lr != default.default:
            raise ValueError(f"{beside}: make them equal, or take OneCycle, whose peak is the optimizer's lr")
        warnings.warn(f"{beside}, which counts; the peak of OneCycle is the optimizer's lr", stacklevel=2)


def _rates(value: Any) -> Iterator[float]:
    if value is not None:
        yield from map(float, value if isinstance(value, list | tuple) else [value])
