"""What a checkpoint could not hold of a model, found when its training starts rather than when it is loaded."""

import warnings
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from lit_generative.description import describe

__all__ = ["check_savable"]


def check_savable(model: nn.Module) -> None:
    """Look for all that a model rebuilt from its description would lack.

    A network put together by hand, and a function, can be passed when the model is loaded: a warning says so. Values
    that cannot be described, and classes that cannot be found again, are refused.

    Args:
        model: A GenerativeModule.

    Raises:
        ValueError: It names the argument, what it is, and what would do.
    """
    name, description = type(model).__name__, describe(model)
    if "opaque" in description:
        raise ValueError(
            f"{name} is defined in a function ({description['opaque']}), where no checkpoint finds it again: define it "
            "at the top of a module or notebook, or train with enable_checkpointing=False"
        )
    for path, found in _opaque_parts(description["init_args"]):
        is_direct = len(path) == 1
        what = f"the argument {'.'.join(path)} of {name} is a {found['opaque']}, which a checkpoint cannot describe"
        if found.get("is_value"):
            raise ValueError(f"{what}: give plain data, such as numbers, text and lists of them (tolist()), or None")
        if ".<locals>." in found["opaque"] and found["is_module"]:
            raise ValueError(f"{what}, as it is defined in a function: define it at the top of a module or notebook")
        remedy = (
            "derive its class from lit_generative.Described" if found["is_module"] else "give a class, or a partial"
        )
        if not is_direct and not found["is_module"]:
            raise ValueError(f"{what}: {remedy} of torch's or of Described")
        warnings.warn(f"{what}: pass {path[0]}=… when loading it, or {remedy}", stacklevel=2)
    _check_attributes(model)


def _opaque_parts(description: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the place and description of each thing that is not described, but for its name."""
    if isinstance(description, list | tuple):
        for i, value in enumerate(description):
            yield from _opaque_parts(value, (*path[:-1], f"{path[-1]}[{i}]") if path else (f"[{i}]",))
    elif isinstance(description, dict):
        if "opaque" in description:
            yield path, description
            return
        for key, value in description.items():
            is_structure = key in ("init_args", "keywords")
            yield from _opaque_parts(value, path if is_structure else (*path, str(key)))


def _check_attributes(model: nn.Module) -> None:
    """Warn of tensors that a user's module keeps as attributes: no checkpoint has them, and no device gets them."""
    for path, module in model.named_modules():
        own = type(module).__module__.partition(".")[0]
        if own in ("torch", "lightning", "torchmetrics", "lit_generative", "zuko"):
            continue
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not name.startswith("_"):
                place = f"{path}.{name}" if path else name
                warnings.warn(
                    f"{place} is a tensor that {type(module).__name__} keeps as an attribute, which checkpoints leave "
                    f"out: make it self.{name} = nn.Buffer(…), or nn.Parameter(…) if it is to be learned",
                    stacklevel=2,
                )
