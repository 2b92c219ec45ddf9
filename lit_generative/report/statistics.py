"""A number with its spread, how it is written, and when one is better than another beyond doubt."""

import dataclasses
from collections.abc import Callable, Sequence
from math import floor, hypot, isfinite, log10, sqrt
from statistics import fmean, stdev

__all__ = ["HIGHER", "LOWER", "NEAR_ONE", "RULE", "SPREADS", "Better", "Number", "leader"]

# Two independent normal numbers whose standard deviations are s_1 and s_2 differ by more than this many times
# sqrt(s_1^2 + s_2^2) once in 20 cases if nothing but chance makes them differ
STANDARD_DEVIATIONS = 2.0

SPREADS = (
    "± is the standard deviation over the seeds that a model was trained with. Marked †, it is the jackknife standard "
    "error over the choice of samples instead, where there is one run, which says nothing about other seeds, or where "
    "the seeds differ by less than that (two may agree by luck). A number without ± is exact, the same for all seeds, "
    "or of unknown spread."
)
RULE = (
    "The best number of a column is bold only if it leads every other model's by more than "
    f"{STANDARD_DEVIATIONS:g} sqrt(s_1² + s_2²), where s is what follows ±. Chance exceeds that once in 20 cases where "
    "s is well known, and more often where it comes from two or three seeds, which leave s uncertain. It is not "
    "divided by the number of seeds: a bold number is one that a single new training is expected to confirm. Where a "
    "spread is unknown nothing is bold, except that a sampling speed counts as known to 10 %."
)


@dataclasses.dataclass(frozen=True)
class Better:
    """Which values of a column are better.

    Attributes:
        arrow: A sign for the column's heading.
        words: The same in words.
        loss: What is lower for a better value.
    """

    arrow: str
    words: str
    loss: Callable[[float], float]


LOWER = Better("↓", "lower is better", lambda value: value)
HIGHER = Better("↑", "higher is better", lambda value: -value)
NEAR_ONE = Better("→ 1", "nearer to 1 is better", lambda value: abs(value - 1))


@dataclasses.dataclass(frozen=True)
class Number:
    """The mean over the runs of a model.

    Attributes:
        mean: It is not finite if that of any run is not.
        spread: Standard deviation over runs, or the standard error where that is larger; None: not known.
        is_standard_error: Which of the two it is.
        margin: The standard deviation by which it is compared; None: not known.
        count: How many runs it is the mean of.
    """

    mean: float
    spread: float | None = None
    is_standard_error: bool = False
    margin: float | None = None
    count: int = 1

    @classmethod
    def of(cls, values: Sequence[float], errors: Sequence[float | None], least: float = 0.0) -> "Number":
        """Return the mean of at least one run.

        Args:
            values: Of the runs.
            errors: Their standard errors over the choice of samples; None where not known.
            least: The least relative margin, of timings, whose errors are not estimated.
        """
        mean = fmean(values)
        if not isfinite(mean):
            return cls(mean, count=len(values))
        deviation = stdev(values) if len(values) > 1 else None
        known = [error for error in errors if error is not None and isfinite(error)]
        error = sqrt(fmean(error**2 for error in known)) if known else None
        is_error = error is not None and error > (deviation or 0)
        spread = error if is_error or deviation is None else deviation
        margin = least * abs(mean) if spread is None and least else spread
        return cls(mean, spread, is_error, margin and max(margin, least * abs(mean)), len(values))

    def __str__(self) -> str:
        """The mean with the digits that its spread leaves it: two of the spread, three where none is known."""
        if not isfinite(self.mean):
            return "not finite"
        if not self.spread:
            return f"{self.mean:,.0f}" if abs(self.mean) >= 1000 else f"{self.mean:.3g}"
        decimals = min(max(1 - floor(log10(self.spread)), 0), 6)
        mark = "†" if self.is_standard_error else ""
        return f"{self.mean:,.{decimals}f} ± {self.spread:,.{decimals}f}{mark}"

    def beats(self, other: "Number", better: Better) -> bool:
        """Whether it is better by more than the spread of both: the rule that ``RULE`` puts into words."""
        if not isfinite(self.mean) or not isfinite(other.mean):
            return isfinite(self.mean) and self.margin is not None
        if self.margin is None or other.margin is None:
            return False
        lead = better.loss(other.mean) - better.loss(self.mean)
        return lead > STANDARD_DEVIATIONS * hypot(self.margin, other.margin)


def leader(numbers: dict[str, Number], better: Better) -> str | None:
    """Return the name of the number that is better than each of the others beyond their spread; None: there is none."""
    for name, number in numbers.items():
        others = [other for key, other in numbers.items() if key != name]
        if others and all(number.beats(other, better) for other in others):
            return name
    return None
