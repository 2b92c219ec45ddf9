"""The one check of a number's range, so that all refusals read alike."""

from math import inf

__all__ = ["check_range"]


def check_range(
    name: str,
    value: float | None,
    *,
    at_least: float = -inf,
    above: float = -inf,
    at_most: float = inf,
    below: float = inf,
    hint: str = "",
) -> None:
    """Refuse a number outside its range, in one sentence; None, which stands for a default, passes.

    Args:
        name: The argument.
        value: What was given; a number that is not one (nan) is in no range.
        at_least: The least that is allowed.
        above: What must be exceeded.
        at_most: The most that is allowed.
        below: What must not be reached.
        hint: What else the reader should know: what the number is, what is usual, how to do without it.

    Raises:
        ValueError: "name=value: it must be at least 1; hint".
    """
    if value is None or (value >= at_least and value > above and value <= at_most and value < below):
        return
    low = f"[{at_least:g}" if at_least > -inf else f"({above:g}"
    high = f"{at_most:g}]" if at_most < inf else f"{below:g})"
    if max(at_least, above) > -inf and min(at_most, below) < inf:
        allowed = f"in {low}, {high}"
    elif at_least > -inf:
        allowed = f"at least {at_least:g}"
    elif above > -inf:
        allowed = "positive" if above == 0 else f"above {above:g}"
    else:
        allowed = f"at most {at_most:g}" if at_most < inf else f"below {below:g}"
    allowed += " and finite" if value == inf and min(at_most, below) == inf else ""
    raise ValueError(f"{name}={value}: it must be {allowed}{f'; {hint}' if hint else ''}")
