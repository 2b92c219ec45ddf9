"""Names of classes on the command line: which one a misspelt name may have meant."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, get_args, get_type_hints

from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lit_generative.core import GenerativeModule
from lit_generative.description import Described, find

__all__ = ["is_class", "nearest", "nearest_class"]

ROOTS = (nn.Module, Optimizer, LRScheduler, LightningDataModule, Callback, Logger, Described)
KINDS = {"model": (GenerativeModule,), "data": (LightningDataModule,), "callbacks": (Callback,)}  # of options
OURS = "lit_generative"


def is_class(name: str) -> bool:
    """Whether an option may name such a class, ours or torch's."""
    return any(cls.__name__ == name for cls in _subclasses(ROOTS))


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return a question about the known names that are like ``name``, or ""."""
    by_lower = {option.lower(): option for option in known}
    found = [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=cutoff)]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def nearest_class(name: str, owner: str, argument: str) -> str:
    """Return a question about the classes that ``name`` may have meant, ours first, or "".

    Args:
        name: What was given.
        owner: The path of the class that has the argument; "": not known.
        argument: What it was given for; its type decides which classes would do.
    """
    classes = set(_subclasses(_types_of(owner, argument) or ROOTS))
    ours = {cls.__name__ for cls in classes if cls.__module__.startswith(f"{OURS}.")}
    found = _alike(name, ours) or _alike(name, {cls.__name__ for cls in classes})
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _alike(name: str, known: set[str]) -> list[str]:
    """Return at most three names that are like ``name``, or begin like it: ``Hing`` is short for ``HingeLoss``."""

    def likeness(other: str) -> float:
        beginning = other.lower()[: len(name) + 1]
        return max(difflib.SequenceMatcher(None, name.lower(), text).ratio() for text in (other.lower(), beginning))

    ranked = sorted(
        ((likeness(other), other) for other in known if not other.startswith("_")), key=lambda r: (-r[0], r)
    )
    return [other for score, other in ranked[:3] if score > max(0.65, ranked[0][0] - 0.15)]


def _types_of(owner: str, argument: str) -> tuple[type, ...]:
    """Return the classes that an argument's type hint names, among those that an option may take."""
    if not owner:
        return KINDS.get(argument, ())
    try:
        hint = get_type_hints(find(owner).__init__).get(argument)
    except (ImportError, AttributeError, NameError, TypeError):
        return ()
    return tuple(cls for cls in _classes_in(hint) if issubclass(cls, ROOTS))


def _classes_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, list | tuple):
        for part in hint:
            yield from _classes_in(part)
    elif get_args(hint):
        yield from _classes_in(get_args(hint))
    elif isinstance(hint, type):
        yield hint


def _subclasses(roots: Iterable[type]) -> Iterator[type]:
    """Yield classes and all that derive from them, as far as they are imported."""
    todo, seen = list(roots), set()
    while todo:
        if (cls := todo.pop()) not in seen:
            seen.add(cls)
            yield cls
            todo += cls.__subclasses__()
