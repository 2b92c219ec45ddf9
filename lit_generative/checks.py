"""The checks of a number's range and of counts, so that all refusals read alike."""

import numbers
from collections.abc import Sequence
from math import inf
from typing import Any

__all__ = ["check_count", "check_counts", "check_image_shape", "check_range"]


def check_range(
    name: str,
    value: float | None,
    *,
    at_least: float = -inf,
    above: float = -inf,
    at_most: float = inf,
    below: float = inf,
    hint: str = "",
    optional: bool = True,
) -> None:
    """Refuse a number outside its range, in one sentence; None, which stands for a default, passes if ``optional``.

    Args:
        name: The argument.
        value: What was given; a number that is not one (nan) is in no range, and neither is what is no number at all.
        at_least: The least that is allowed.
        above: What must be exceeded.
        at_most: The most that is allowed.
        below: What must not be reached.
        hint: What else the reader should know: what the number is, what is usual, how to do without it.
        optional: Whether None passes.

    Raises:
        ValueError: "name=value: it must be at least 1; hint".
    """
    if value is None and optional:
        return
    is_number = _is_number(value)
    if value is not None and is_number and at_least <= value <= at_most and above < value < below:
        return
    low = f"[{at_least:g}" if at_least > -inf else f"({above:g}"
    high = f"{at_most:g}]" if at_most < inf else f"{below:g})"
    if max(at_least, above) > -inf and min(at_most, below) < inf:
        allowed = f"in {low}, {high}"
    elif at_least > -inf:
        allowed = f"at least {at_least:g}"
    elif above > -inf:
        allowed = "positive" if above == 0 else f"above {above:g}"
    elif min(at_most, below) < inf:
        allowed = f"at most {at_most:g}" if at_most < inf else f"below {below:g}"
    else:
        allowed = "finite"
    if value == inf and min(at_most, below) == inf and allowed != "finite":
        allowed += " and finite"
    shown = value if is_number else f"{value!r}"
    kind = "" if is_number else "a number, "
    raise ValueError(f"{name}={shown}: it must be {kind}{allowed}{f'; {hint}' if hint else ''}")


def check_count(
    name: str,
    value: int | None,
    *,
    at_least: int = 1,
    at_most: float = inf,
    hint: str = "",
    optional: bool = True,
) -> None:
    """Refuse what is no whole number in a range; None, which stands for a default, passes if ``optional``.

    Raises:
        ValueError: "name=value: it must be at least 1; hint", or "a whole number".
    """
    check_range(name, value, at_least=at_least, at_most=at_most, hint=hint, optional=optional)
    if value is not None and not _is_whole(value):
        raise ValueError(
            f"{name}={value}: it must be a whole number, such as {int(value)}{f'; {hint}' if hint else ''}"
        )


def check_counts(name: str, values: Sequence[int] | None, *, hint: str = "") -> None:
    """Refuse what is no list of positive whole numbers; None, which stands for a default, passes.

    Raises:
        ValueError: "name=[64, 0]: it must be a list of whole numbers, each at least 1; hint".
    """
    if values is None:
        return
    is_list = isinstance(values, Sequence) and not isinstance(values, str)
    if not is_list or not all(_is_number(v) and _is_whole(v) and v >= 1 for v in values):
        shown = list(values) if is_list else repr(values)
        raise ValueError(
            f"{name}={shown}: it must be a list of whole numbers, each at least 1{f'; {hint}' if hint else ''}"
        )


def check_image_shape(image_shape: Sequence[int]) -> None:
    """Refuse what is not (C, H, W), three positive whole numbers.

    Raises:
        ValueError: It names the argument image_shape.
    """
    hint = "it is (channels, height, width), such as (1, 28, 28)"
    if image_shape is None:
        raise ValueError(f"image_shape=None: {hint}")
    check_counts("image_shape", image_shape, hint=hint)
    if len(image_shape) != 3:
        raise ValueError(f"image_shape={tuple(image_shape)}: it must have three numbers; {hint}")


def _is_whole(value: Any) -> bool:
    """Whether a number is of a type of whole numbers: 2.0 is none, it counts nothing."""
    return isinstance(value, numbers.Integral) or (hasattr(value, "dtype") and "int" in str(value.dtype))


def _is_number(value: Any) -> bool:
    """Whether ``value`` is a number, of Python, of numpy or in a tensor without dimensions; True and False are none."""
    return (isinstance(value, numbers.Real) or getattr(value, "ndim", None) == 0) and not isinstance(value, bool)
