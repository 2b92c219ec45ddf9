"""Checks of the data modules' arguments that are not one number: one sentence with the value and what would do."""

from collections.abc import Sequence
from typing import Any

from lit_generative.checks import check_count, check_counts

__all__ = ["check_choice", "check_text", "height_and_width"]

_LARGEST = 16_384  # pixels a side, beyond which a single image fills the memory


def check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Refuse what is none of ``allowed``; 1 is not True here."""
    if not any(isinstance(value, bool) == isinstance(choice, bool) and value == choice for choice in allowed):
        raise ValueError(f"{name}={value!r} is none of {', '.join(map(str, allowed))}")


def check_text(name: str, value: Any, what: str, *, optional: bool = True) -> None:
    """Refuse what is no text, or empty; None passes where it is ``optional``."""
    if not (value is None and optional) and not (isinstance(value, str) and value.strip()):
        raise ValueError(f"{name}={value!r}: it must be {what}")


def height_and_width(image_size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return the two numbers that one or two say; None of None.

    Raises:
        ValueError: If it is neither, or no number of pixels.
    """
    if not isinstance(image_size, Sequence) or isinstance(image_size, str):
        check_count("image_size", image_size, at_most=_LARGEST)
        return None if image_size is None else (int(image_size), int(image_size))  # type: ignore[arg-type]
    check_counts("image_size", image_size, hint="they are height and width in pixels, such as [96, 64]")
    if len(image_size) != 2 or max(image_size) > _LARGEST:
        raise ValueError(
            f"image_size={list(image_size)}: give height and width, each at most {_LARGEST}, or one number"
        )
    height, width = image_size
    return int(height), int(width)
