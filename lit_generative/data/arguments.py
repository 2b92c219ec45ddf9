"""Checks of the data modules' arguments: one sentence with the argument, the value and what would do."""

from math import inf
from numbers import Integral, Real
from typing import Any

from lit_generative.checks import check_range

__all__ = ["check_choice", "check_integer", "check_number", "check_text"]


def check_integer(name: str, value: Any, at_least: int, *, at_most: float = inf, optional: bool = False) -> None:
    """Refuse what is no whole number from ``at_least`` to ``at_most``; None passes where it is ``optional``."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name}={value!r}: it must be a whole number, at least {at_least}")
    check_range(name, int(value), at_least=at_least, at_most=at_most)


def check_number(name: str, value: Any, **limits: float) -> None:
    """Refuse what is no number, or outside the limits of :func:`~lit_generative.checks.check_range`."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name}={value!r}: it must be a number")
    check_range(name, value, **limits)  # type: ignore[arg-type]


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse what is none of ``allowed``; 1 is not True here."""
    if not any(isinstance(value, bool) == isinstance(choice, bool) and value == choice for choice in allowed):
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(str, allowed))}")


def check_text(name: str, value: Any, what: str, *, optional: bool = True) -> None:
    """Refuse what is no text, or empty; None passes where it is ``optional``."""
    if not (value is None and optional) and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{name}={value!r}: it must be {what}")
