"""What the report's tables have in their columns: where a number is found, and which way is better."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

from lit_generative.report.results import Comparison, Point, Run, Training
from lit_generative.report.statistics import HIGHER, LOWER, NEAR_ONE, Better, Number

__all__ = [
    "COPYING",
    "SMOOTHED",
    "Column",
    "class_columns",
    "cost_columns",
    "distance",
    "distance_column",
    "distances",
    "extended_columns",
    "history_columns",
    "image_columns",
    "last_over_best",
    "quality_columns",
    "speed_column",
]

SMOOTHED, _SPREADS = 6, 4
# What tells copiers, by title; no competition, for to be farther from training images than real ones are is no merit
COPYING = {
    "Memorised share": "memorised",
    "Memorised share, features": "memorised_features",
    "Authentic share": "authenticity",
    "Nearer to training images by": "train_gap",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One kind of number.

    Attributes:
        title: Its name and unit.
        read: Returns a run's number; None: it was not measured.
        better: Which values are better; None: neither way is.
        error: Returns the number's standard error over the choice of samples; None: not known.
        floor: Returns what real images reach; None: it means nothing for them.
        floor_spread: Returns the standard deviation of that; None: it is exact, or not known.
        images: Returns the numbers of single images, the same ones for each model; (): there are none.
        least_error: The least relative error, for timings.
        absent: Returns what is said of a run without the number.
        detail: Returns what is written below the number.
    """

    title: str
    read: Callable[[Run], float | None]
    better: Better | None = None
    error: Callable[[Run], float | None] = lambda run: None
    floor: Callable[[Comparison], float | None] = lambda comparison: None
    floor_spread: Callable[[Comparison], float | None] = lambda comparison: None
    images: Callable[[Run], Sequence[float]] = lambda run: ()
    least_error: float = 0.0
    absent: Callable[[Run], str] = lambda run: "not measured"
    detail: Callable[[Sequence[Run]], str] = lambda runs: ""

    @property
    def heading(self) -> str:
        """The title with the direction of better."""
        return f"{self.title} {self.better.arrow}" if self.better else self.title

    def number(self, runs: Sequence[Run]) -> Number | None:
        """Return the mean over the runs of a model that have the number; None if none has."""
        found = [(value, run) for run in runs if (value := self.read(run)) is not None]
        if not found:
            return None
        images = [self.images(run) for _, run in found]
        return Number.of(
            [value for value, _ in found],
            [self.error(run) for _, run in found],
            self.least_error,
            images if all(images) else (),
        )


def _metric(
    title: str, name: str, better: Better | None, detail: Callable[[Sequence[Run]], str] = lambda runs: ""
) -> Column:
    return Column(
        title,
        lambda run: run.metrics.get(name),
        better,
        error=lambda run: run.errors.get(name),
        floor=lambda comparison: comparison.floor.get(name),
        floor_spread=lambda comparison: comparison.floor_spread.get(name),
        detail=detail,
    )


def _key(comparison: Comparison, inception: str, other: str) -> str:
    """The name of a distance: that of Inception's features if it was measured in them."""
    return inception if any(inception in run.metrics for run in comparison.runs) else other


def distance_column(comparison: Comparison) -> Column:
    """Return the Fréchet distance, which is called FID in Inception's features alone."""
    name = _key(comparison, "fid", "frechet_distance")
    return _metric({"fid": "FID"}.get(name, "Fréchet distance"), name, LOWER)


def quality_columns(comparison: Comparison) -> list[Column]:
    """Return how good and how various the samples are; class accuracy only if some model has it."""
    kernel = _key(comparison, "kid", "kernel_distance")
    columns = [
        distance_column(comparison),
        _metric({"kid": "KID"}.get(kernel, "Kernel distance"), kernel, LOWER),
        _metric("Precision", "precision", HIGHER),
        _metric("Recall", "recall", HIGHER),
        _metric("Density", "density", HIGHER),
        _metric("Coverage", "coverage", HIGHER),
        _metric("Missing classes", "missing_classes", LOWER, detail=_missing),
        _metric("Class accuracy", "class_accuracy", HIGHER),
    ]
    has_classes = any("class_accuracy" in run.metrics for run in comparison.runs)
    return columns if has_classes else columns[:-1]


def extended_columns(comparison: Comparison) -> list[Column]:
    """Return those of what papers report besides that some run has."""
    columns = {
        "fid_infinity": _metric("FID-infinity", "fid_infinity", LOWER),
        "frechet_infinity": _metric("Fréchet distance of infinitely many samples", "frechet_infinity", LOWER),
        "cmmd": _metric("CMMD", "cmmd", LOWER),
        "gaussian_kernel_distance": _metric("Distance with a Gaussian kernel", "gaussian_kernel_distance", LOWER),
        "vendi_score": _metric("Vendi score", "vendi_score", None),
    }
    return [column for name, column in columns.items() if any(name in run.metrics for run in comparison.runs)]


def class_columns(comparison: Comparison) -> list[Column]:
    """Return the kernel distance of each class, if they were measured; unlike the Fréchet distance, it has no bias."""
    names = dict.fromkeys(name for run in comparison.runs for name in run.by_class)
    return [Column(name, partial(_of_class, name)) for name in names]


def _of_class(name: str, run: Run) -> float | None:
    return run.by_class.get(name, {}).get("kernel_distance")


def _missing(runs: Sequence[Run]) -> str:
    """The classes that some run misses, each with the number of runs if that is not all of them."""
    names = dict.fromkeys(name for run in runs for name in run.missing)
    counts = {name: sum(name in run.missing for run in runs) for name in names}
    return ", ".join(name if n == len(runs) else f"{name} ({n} of {len(runs)})" for name, n in counts.items())


def image_columns(comparison: Comparison) -> list[Column]:
    """Return the likelihoods by their estimates, sharpness, and how near samples are to training images."""
    estimates = dict.fromkeys(name for run in comparison.runs for name in run.likelihood) or {"": None}
    return [
        *map(_likelihood, estimates),
        _metric("Sharpness", "sharpness", NEAR_ONE),
        _metric("Distance to training images", "nearest", NEAR_ONE),
        *(_metric(title, name, None) for title, name in COPYING.items()),
    ]


def _likelihood(name: str) -> Column:
    return Column(
        f"-log p ({name}), bits/dim" if name else "-log p, bits/dim",
        lambda run: run.likelihood[name][0] if name in run.likelihood else None,
        LOWER,
        error=lambda run: run.likelihood[name][1] if name in run.likelihood else None,
        images=lambda run: run.likelihood_images.get(name, ()),
        absent=lambda run: "not measured" if run.likelihood else "not defined",
    )


def speed_column() -> Column:
    """Return the sampling speed; timings of one program on one machine differ by some 10 %."""
    return Column("Samples/s", lambda run: run.images_per_second, HIGHER, least_error=0.1)


def cost_columns() -> list[Column]:
    """Return what a model takes; only the sampling speed is a matter of better and worse."""
    return [
        Column("Parameters", lambda run: run.parameters),
        Column("Network evaluations a sample", lambda run: run.evaluations),
        speed_column(),
        Column("Training images", _trained(lambda training: training.images)),
        Column("Training, minutes", _trained(lambda training: training.minutes)),
        Column("Cost, device-minutes", _trained(lambda training: training.device_minutes)),
    ]


def _trained(read: Callable[[Training], float | None]) -> Callable[[Run], float | None]:
    return lambda run: None if run.training is None else read(run.training)


def history_columns(comparison: Comparison) -> list[Column]:
    """Return the best and the last distance that evaluations during the training found, and their ratio."""
    distance = distance_column(comparison).title
    return [
        Column(f"Best {distance}", lambda run: min(distances(run), default=None)),
        Column(f"Last {distance}", lambda run: next(reversed(distances(run)), None)),
        Column("Last/best", last_over_best, LOWER),
    ]


def distances(run: Run) -> list[float]:
    """Return the Fréchet distances of a training's history."""
    history = run.training.history if run.training is not None else []
    return [value for point in history if (value := distance(point)) is not None]


def distance(point: Point | Run) -> float | None:
    """Return the Fréchet distance of a point or a run, in whichever features it was measured."""
    return point.metrics.get("fid", point.metrics.get("frechet_distance"))


def last_over_best(run: Run) -> float | None:
    """Return the last Fréchet distance over the best of the history; None with fewer than two evaluations.

    From six evaluations on both are of running medians of three, for the best of many is an outlier. What is within
    four spreads of the floor is a perfect model's: below that, ratios are chance.
    """
    found = distances(run)
    if len(found) < 2 or min(found) <= 0:
        return None
    if len(found) >= SMOOTHED:
        found = [median(found[i : i + 3]) for i in range(len(found) - 2)]
    name = "fid" if "fid" in run.metrics else "frechet_distance"
    floor, spread = (run.protocol.get(key, {}).get(name) or 0.0 for key in ("floor", "floor_spread"))
    perfect = max(floor + _SPREADS * spread, 0.0)
    return max(found[-1], perfect) / max(min(found), perfect)
