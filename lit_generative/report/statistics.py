"""A number with its spread, how it is written, and how sure it is that one model is better than another."""

import dataclasses
from collections.abc import Callable, Sequence
from math import floor, inf, isfinite, log10, sqrt
from statistics import fmean, stdev, variance

from scipy import stats

__all__ = ["HIGHER", "LEVEL", "LOWER", "NEAR_ONE", "RULE", "SPREADS", "Better", "Number", "holm"]

LEVEL = 0.05
"""The chance of one or more false bold numbers in a whole report."""

SPREADS = (
    '± is the standard deviation over the seeds that a model was trained with, and "a to b" Student\'s 95 % '
    "interval of their mean. Marked †, ± is the jackknife standard error over the choice of samples instead, where "
    "there is one training, which says nothing about other seeds, or where the seeds differ by less than that (two may "
    "agree by luck); it takes the real images as given. A number without ± is exact, the same for all seeds, or of "
    "unknown spread. The floor's ± is the spread over random splits of the real images."
)
RULE = (
    "The best number of a column is bold only if it is better than every other model's beyond the chance of the seeds: "
    "one-sided t tests whose degrees of freedom are the smaller number of seeds less one (safe for any two variances), "
    "corrected for the number of models by Bonferroni's and over the columns by Holm's rule, so that "
    f"without any difference at most {LEVEL:.0%} of reports have a bold number. Likelihoods, which are of the same "
    "images, are compared image by image. A model with one training is not tested, so that nothing is bold where it "
    "competes; sampling speeds alone count as known to 10 %. Never bold, nor counted as a rival, is a model that draws "
    "copies of training images, nor a number better than what real images reach."
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
    """The mean over the trainings of a model.

    Attributes:
        mean: It is not finite if that of any training is not.
        spread: Standard deviation over trainings, or the standard error where that is larger; None: not known.
        is_standard_error: Which of the two it is.
        count: How many trainings it is the mean of.
        variance: Of one training's number, by which it is tested; None: not known.
        is_known: Whether that variance is known beforehand, and no estimate from the trainings.
        images: Mean over the trainings of each image's number, where all models are asked about the same images.
    """

    mean: float
    spread: float | None = None
    is_standard_error: bool = False
    count: int = 1
    variance: float | None = None
    is_known: bool = False
    images: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        errors: Sequence[float | None],
        least: float = 0.0,
        images: Sequence[Sequence[float]] = (),
    ) -> "Number":
        """Return the mean of at least one training.

        Args:
            values: Of the trainings.
            errors: Their standard errors over the choice of samples; None where not known.
            least: The relative standard deviation of timings, which is known and of which no error is estimated.
            images: Each training's numbers of the same images.
        """
        mean, count = fmean(values), len(values)
        if not isfinite(mean):
            return cls(mean, count=count)
        deviation = stdev(values) if count > 1 else None
        known = [error for error in errors if error is not None and isfinite(error)]
        error = sqrt(fmean(error**2 for error in known)) if known else None
        is_error = error is not None and error > (deviation or 0)
        spread = error if is_error or deviation is None else deviation
        seeds = deviation if images else spread  # images are the same for all, so that their choice is no error
        tested = max(seeds or 0, least * abs(mean)) ** 2 if count > 1 or least else None
        is_known = bool(least) and (seeds or 0) <= least * abs(mean)
        alike = len({len(row) for row in images}) == 1 and len(images) == count
        by_image = tuple(map(fmean, zip(*images, strict=True))) if alike else ()
        return cls(mean, spread, is_error, count, tested, is_known, by_image)

    def __str__(self) -> str:
        """The mean with the digits that its spread leaves it: two of the spread, three where none is known."""
        if not isfinite(self.mean):
            return "not finite"
        if not self.spread:
            return f"{self.mean:,.0f}" if abs(self.mean) >= 1000 else f"{self.mean:.3g}"
        mark = "†" if self.is_standard_error else ""
        return f"{self.mean:,.{self._decimals}f} ± {self.spread:,.{self._decimals}f}{mark}"

    @property
    def _decimals(self) -> int:
        return min(max(1 - floor(log10(self.spread)), 0), 6) if self.spread else 3

    @property
    def interval(self) -> str:
        """Student's 95 % interval of the mean over trainings, as text; "" with fewer than two."""
        if self.count < 2 or not self.variance or not isfinite(self.mean):
            return ""
        half = float(stats.t.ppf(0.975, self.count - 1)) * sqrt(self.variance / self.count)
        low, high = (f"{self.mean + sign * half:,.{self._decimals}f}" for sign in (-1, 1))
        return f"{low} to {high}"

    def chance(self, other: "Number", better: Better) -> float | None:
        """Return how likely so large a lead over another model is by chance, one-sided; None if that cannot be tested.

        The statistic's variance is the sum of both models' over their trainings and, where both have the same images,
        of the differences' over the images. Its degrees of freedom are those of the fewer trainings: with Welch's
        estimate of them, chance exceeds the level where variances differ (Hájek 1962).
        """
        if not isfinite(self.mean) or not isfinite(other.mean):
            return 0.0 if isfinite(self.mean) else 1.0
        if self.variance is None or other.variance is None:
            return None
        square = self.variance / (1 if self.is_known else self.count)
        square += other.variance / (1 if other.is_known else other.count)
        degrees = min([number.count - 1 for number in (self, other) if not number.is_known], default=inf)
        if len(self.images) == len(other.images) > 1:
            differences = [a - b for a, b in zip(self.images, other.images, strict=True)]
            square += variance(differences) / len(differences)
        lead = better.loss(other.mean) - better.loss(self.mean)
        if square == 0 or degrees < 1:
            return None
        score = lead / sqrt(square)
        return float(stats.t.sf(score, degrees) if isfinite(degrees) else stats.norm.sf(score))


def holm(chances: dict[str, float], level: float = LEVEL) -> set[str]:
    """Return which of several hypotheses are refuted (Holm 1979), with a chance of at most ``level`` of any mistake.

    Args:
        chances: The p-value of each.
        level: Of the whole family.
    """
    refuted: set[str] = set()
    for i, name in enumerate(sorted(chances, key=chances.__getitem__)):
        if chances[name] > level / (len(chances) - i):
            break
        refuted.add(name)
    return refuted
