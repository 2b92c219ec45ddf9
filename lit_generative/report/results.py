"""What a comparison found, as plain data: a :class:`Run` for each trained model, and the :class:`Comparison` of them.

What was not or could not be measured is None, never a number that stands for it.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from lit_generative.files import write_json

__all__ = ["Comparison", "Point", "Run", "Training"]

# What two runs of one table have in common, by its place in the protocol; what is not stamped is not compared
_ONE_TABLE = {
    "data_content": "against other images",
    "extractor_sha256": "by other extractors",
    "split": "on other splits",
    "num_real": "against other numbers of images",
    "num_fake": "with other numbers of samples",
    "metrics_code": "by other versions of the metrics",
}


@dataclasses.dataclass
class Point:
    """The quality of samples at one place of a curve.

    Attributes:
        images: Training images seen so far.
        minutes: Minutes of training so far, validation and evaluation left out.
        evaluations: Network evaluations a sample.
        images_per_second: How fast samples were drawn.
        metrics: As in :class:`Run`, but none of pixels.
    """

    metrics: dict[str, float]
    images: int | None = None
    minutes: float | None = None
    evaluations: int | None = None
    images_per_second: float | None = None


@dataclasses.dataclass
class Training:
    """What is known of how a model was trained.

    Attributes:
        images: Training images seen.
        minutes: Minutes of training, validation and evaluation left out.
        device_minutes: The same times the devices (or CPU cores) that it ran on.
        history: The evaluations during training, on validation images.
        verdict: What ``GANHealth`` said last: "healthy", "mode collapse", ...
        is_finite: False if a loss was not finite and ended the run.
    """

    images: int
    minutes: float | None = None
    device_minutes: float | None = None
    history: list[Point] = dataclasses.field(default_factory=list)
    verdict: str | None = None
    is_finite: bool = True


@dataclasses.dataclass
class Run:
    """One trained model (or a folder of images offered as one) and all that was measured of it.

    Attributes:
        name: Which model it is, for instance "vae/fashion"; runs of the same name differ in their seed alone.
        source: The checkpoint's or folder's path.
        family: "VAE", "GAN", "DDPM", a user's class that is none of these, or "images" for a folder.
        seed: The training's seed.
        parameters: How many the model has that are trained.
        evaluations: Network evaluations a sample.
        images_per_second: How fast samples were drawn.
        metrics: Name to value, as in :class:`~lit_generative.evaluation.Evaluation`, and of images ``sharpness``, their
            high-frequency power over that of real ones (less than 1 is blurred, more is noisy), ``memorised``, the
            share that copies a training image, and ``nearest``, the median distance to the nearest training image over
            the same of real test images; in the extractor's features, ``memorised_features``, ``authenticity`` and
            ``train_gap``, the Fréchet distance to test images less that to as many training images.
        errors: Standard errors of the metrics over the choice of samples (delete-half jackknife), the real images and
            the training being given.
        missing: The names of classes that are missing among the samples.
        by_class: If measured, Fréchet and kernel distance of each class, by the class's name.
        likelihood: Estimate to (bits/dim, standard error), such as {"bound": (3.1, 0.02)}; {} where the model defines
            none.
        likelihood_images: The bits/dim of each image by estimate; of all models they are the same images.
        spectrum: Radially averaged power of the samples at each spatial frequency, from 0 on.
        curve: Quality at fewer network evaluations than the model's own.
        training: How it was trained.
        protocol: The stamp of the metrics.
        warnings: Sentences to print beside the numbers.
        pictures: PNG files, relative to the folder of ``results.json``, by what they show: "samples", "nearest".
    """

    name: str
    source: str
    family: str
    protocol: dict[str, Any]
    metrics: dict[str, float]
    errors: dict[str, float]
    seed: int | None = None
    parameters: int | None = None
    evaluations: int | None = None
    images_per_second: float | None = None
    missing: list[str] = dataclasses.field(default_factory=list)
    by_class: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    likelihood: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    likelihood_images: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    spectrum: list[float] = dataclasses.field(default_factory=list)
    curve: list[Point] = dataclasses.field(default_factory=list)
    training: Training | None = None
    warnings: list[str] = dataclasses.field(default_factory=list)
    pictures: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Run":
        """Return the run that ``dataclasses.asdict`` made ``values`` of, also after a passage through JSON."""
        training = values.get("training")
        if training is not None:
            training = Training(**training | {"history": [Point(**point) for point in training["history"]]})
        curve = [Point(**point) for point in values["curve"]]
        likelihood = {name: (mean, error) for name, (mean, error) in values["likelihood"].items()}
        return cls(**values | {"training": training, "curve": curve, "likelihood": likelihood})


@dataclasses.dataclass
class Comparison:
    """Runs that were measured by one protocol, and what real images reach by it.

    Attributes:
        floor: The metrics of real test images against other ones, as a perfect model would get.
        floor_spread: The standard deviation of each of these.
        spectrum: That of real test images.
        machine: What it was measured on, in words.
        date: When, as YYYY-MM-DD.
        command: The command line that repeats it.
        pictures: Those of real images, as of a run.
    """

    runs: list[Run]
    floor: dict[str, float]
    spectrum: list[float]
    machine: str
    date: str
    command: str
    pictures: dict[str, str] = dataclasses.field(default_factory=dict)
    floor_spread: dict[str, float] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Look whether the runs' numbers belong into one table.

        Raises:
            ValueError: If there is no run, or two were compared with other images, by another extractor, or by another
                version of the metrics.
        """
        if not self.runs:
            raise ValueError("comparison has no runs; measure at least one model before a report is written")
        first = self.runs[0]
        for key, what in _ONE_TABLE.items():
            for run in self.runs:
                values = first.protocol.get(key), run.protocol.get(key)
                if None not in values and values[0] != values[1]:
                    raise ValueError(
                        f"{first.name} and {run.name} ({run.source}) were measured {what}: {key} is {values[0]} and "
                        f"{values[1]}; measure them by one `compare`"
                    )

    def by_name(self) -> dict[str, list[Run]]:
        """Return the runs of each model, in the order in which they were given."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            groups.setdefault(run.name, []).append(run)
        return groups

    def save(self, path: Path) -> None:
        """Write everything as JSON; the file is replaced in one piece."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> "Comparison":
        """Read what :meth:`save` wrote."""
        values = json.loads(path.read_text())
        return cls(**values | {"runs": [Run.from_dict(run) for run in values["runs"]]})
