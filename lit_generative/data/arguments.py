"""Checks of the data modules' arguments that are no numbers: one sentence with the value and what would do."""

from typing import Any

__all__ = ["check_choice", "check_text"]


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse what is none of ``allowed``; 1 is not True here."""
    if not any(isinstance(value, bool) == isinstance(choice, bool) and value == choice for choice in allowed):
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(str, allowed))}")


def check_text(name: str, value: Any, what: str, *, optional: bool = True) -> None:
    """Refuse what is no text, or empty; None passes where it is ``optional``."""
    if not (value is None and optional) and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{name}={value!r}: it must be {what}")
