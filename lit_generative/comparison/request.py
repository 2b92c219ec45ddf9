"""What a comparison is asked for; wrong requests are refused before anything is done."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lit_generative.callbacks.budget import Budget, number_of_images
from lit_generative.checks import check_count
from lit_generative.comparison.measure import MeasurementProtocol
from lit_generative.contracts import ImageData
from lit_generative.files import read_yaml
from lit_generative.recipes import resolve
from lit_generative.training.budget import TimedTraining
from lit_generative.training.folder import own_name

__all__ = ["ComparisonRequest"]

MINUTES = 5.0  # of each training, where no length is given


@dataclasses.dataclass(frozen=True)
class ComparisonRequest:
    """What is to be compared, and how.

    Attributes:
        protocol: How everything is measured.
        checkpoints: Files, and folders of images.
        recipes: Names or files.
        names: What the models are called, first the checkpoints, then the recipes; () leaves that to their paths.
        data: On what; None: on the data of the first model.
        fit_options: Further options of the trainings.
        command: The command line that goes on.
        output: The folder of trainings, numbers and report.
        minutes: Of training, for each recipe and seed; evaluation comes on top. None: 5, if there are no images either.
        images: Instead of minutes, training images for each, such as 500_000, "500k" or "2M".
        seeds: How many seeds each recipe is trained with: 0, 1, ...
        logger: Where tables and plots go as well, for instance lit_generative.loggers.WandbLogger.

    Raises:
        FileNotFoundError: If there is no such recipe.
        ValueError: If a number or a name makes no sense, or there is nothing to compare.
    """

    protocol: MeasurementProtocol
    checkpoints: Sequence[Path] = ()
    recipes: Sequence[str] = ()
    names: Sequence[str] = ()
    data: ImageData | None = None
    fit_options: Sequence[str] = ()
    command: str = ""
    output: Path = Path("runs/comparison")
    minutes: float | None = None
    images: int | str | None = None
    seeds: int = 1
    logger: Logger | None = None

    def __post_init__(self) -> None:
        if not (count := len(self.checkpoints) + len(self.recipes)):
            raise ValueError("nothing is given to compare; name checkpoints, folders of images, or --recipes")
        Budget(self.minutes, self.images)  # refuses what is no length
        check_count("seeds", self.seeds)
        if len(self.names) not in (0, count):
            raise ValueError(f"names has {len(self.names)} for {count} models; give one for each, or none")
        if bad := [name for name in self.names if not name or name.startswith("/") or ".." in name]:
            raise ValueError(f"names has {bad[0]!r}, but files are called so; use letters, numbers, - and /")
        for recipe in self.recipes:
            if (path := resolve(recipe, "--recipes")).suffix not in (".yaml", ".yml"):
                raise ValueError(f"recipes has {path}, which is no YAML file; checkpoints come before all options")
        runs = [training.name for training in self.trainings]
        if twice := [name for i, name in enumerate(runs) if name in runs[:i]]:
            raise ValueError(f"recipes has two of the name {twice[0]}; rename one file, or name it once")

    @property
    def trainings(self) -> list[TimedTraining]:
        """Those of each recipe."""
        folder = self.output / "training"
        names = [own_name(self.data, resolve(recipe, "--recipes")) for recipe in self.recipes]
        named = zip(self.recipes, names, strict=True)
        return [TimedTraining(recipe, self.length, folder, self.fit_options, name) for recipe, name in named]

    @property
    def length(self) -> dict[str, float]:
        """How long each training is, in minutes or images."""
        if (images := number_of_images(self.images)) is not None:
            return {"images": images}
        return {"minutes": MINUTES if self.minutes is None else self.minutes}

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the numbers, as plain data."""
        settings: dict[str, Any] = {
            "checkpoints": [str(path.resolve()) for path in self.checkpoints],
            "names": list(self.names),
            "protocol": self.protocol.describe(),
            "data": None if self.data is None else self.data.protocol("train"),
        }
        if self.recipes:
            settings["recipes"] = {recipe: _digest(resolve(recipe)) for recipe in self.recipes}
            settings |= {**self.length, "seeds": self.seeds, "fit_options": list(self.fit_options)}
        return settings


def _digest(recipe: Path) -> str:
    """Return the SHA-256 of what a recipe says, comments left out."""
    return hashlib.sha256(json.dumps(read_yaml(recipe), sort_keys=True).encode()).hexdigest()
