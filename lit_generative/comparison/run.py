"""A comparison from its entries to its report: train what is to be trained, measure each once, and write."""

import dataclasses
import datetime
import functools
import gc
import hashlib
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml

from lit_generative.comparison.cache import Protocol, measured, measured_real
from lit_generative.comparison.entries import Entry, find_entries
from lit_generative.comparison.folder_model import ImagesOf
from lit_generative.comparison.measure import RealImages
from lit_generative.comparison.plan import Plan
from lit_generative.comparison.training import (
    Trained,
    TrainingPlan,
    calibrate,
    calibration_folder,
    checkpoints,
    finished_training,
    run_name,
    train,
)
from lit_generative.contracts import ImageData
from lit_generative.description import rebuild
from lit_generative.recipes import resolve
from lit_generative.report.images import REAL_IMAGES, Pictures
from lit_generative.report.results import Comparison
from lit_generative.report.write import write_report

__all__ = ["Request", "run_comparison"]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be compared, and how.

    Attributes:
        checkpoints: Files, and folders of images.
        recipes: Names or files.
        names: What the models are called, first the checkpoints, then the recipes; [] leaves that to their paths.
        minutes: Of training, for each recipe and seed.
        seeds: How many each recipe is trained with.
        output: The comparison's folder.
        protocol: How everything is measured.
        data: On what; None: on the data of the first model.
        fit_options: Further options of the trainings.
        command: The command line that goes on.

    Raises:
        ValueError: If a number makes no sense, or there is nothing to compare.
    """

    checkpoints: Sequence[Path]
    recipes: Sequence[str]
    names: Sequence[str]
    minutes: float
    seeds: int
    output: Path
    protocol: Protocol
    data: ImageData | None
    fit_options: Sequence[str]
    command: str

    def __post_init__(self) -> None:
        if not (self.checkpoints or self.recipes):
            raise ValueError("nothing is given to compare; name checkpoints, folders of images, or --recipes")
        if not 0 < self.minutes < float("inf"):
            raise ValueError(f"minutes={self.minutes}: the time that recipes are trained for must be positive")
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds}: each recipe is trained with at least 1")
        if len(self.names) not in (0, len(self.checkpoints) + len(self.recipes)):
            count = len(self.checkpoints) + len(self.recipes)
            raise ValueError(f"names has {len(self.names)} for {count} models; give one for each, or none")
        if bad := [name for name in self.names if not name or name.startswith("/") or ".." in name]:
            raise ValueError(f"names has {bad[0]!r}, but files are called so; use letters, numbers, - and /")
        for recipe in self.recipes:
            if (path := resolve(recipe)).suffix not in (".yaml", ".yml"):
                raise ValueError(f"recipes has {path}, which is no YAML file; checkpoints come before all options")

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the numbers, as plain data."""
        trained = {"recipes": {name: _digest(resolve(name)) for name in self.recipes}, "minutes": self.minutes}
        trained |= {"seeds": self.seeds, "fit_options": list(self.fit_options)}
        return {
            "checkpoints": [str(path.resolve()) for path in self.checkpoints],
            "names": list(self.names),
            "protocol": self.protocol.describe(),
            "data": None if self.data is None else self.data.protocol("train"),
            **(trained if self.recipes else {}),
        }


def run_comparison(request: Request) -> Comparison:
    """Compare: what is there of an earlier run of the same request is used, and everything is kept for a later one.

    Raises:
        FileNotFoundError: If a checkpoint, recipe or extractor is missing.
        ImportError: If a model's class is not imported.
        ValueError: If a checkpoint is damaged, models and data do not fit together, or the folder is another's.
    """
    names = list(request.names) or None
    given = find_entries(request.checkpoints, names and names[: len(request.checkpoints)])
    recipe_names = _recipe_names(request)
    plan = Plan.open(request.output, request.settings, request.command)
    trainings = TrainingPlan(request.output / "training", request.minutes, request.fit_options)
    data = request.data or _data_of(given)
    if data is not None:
        _check(given, data, request)
    plan.save()
    _calibrate(request, plan, trainings)
    calibrated = [next(checkpoints(calibration_folder(trainings) / run_name(recipe))) for recipe in request.recipes]
    data = data or _data_of(find_entries(calibrated)) or _no_data()
    _check(find_entries(calibrated), data, request)
    trained = _train(request, plan, trainings)
    all_names = [entry.name for entry in given] + [recipe_names[recipe] for recipe, _ in trained]
    sources = [*request.checkpoints, *(found.checkpoint for _, found in trained)]
    problems = [""] * len(given) + [found.problem for _, found in trained]
    comparison, pictures = _measure(find_entries(sources, all_names), problems, data, request)
    write_report(comparison, pictures, request.output)
    return comparison


def _recipe_names(request: Request) -> dict[str, str]:
    """Return what each recipe is called in the report."""
    runs = [run_name(recipe) for recipe in request.recipes]
    if twice := [name for i, name in enumerate(runs) if name in runs[:i]]:
        raise ValueError(f"recipes has two of the name {twice[0]}; rename one file, or name it once")
    own = request.names[len(request.checkpoints) :]
    return dict(zip(request.recipes, own or runs, strict=True))


def _data_of(entries: Sequence[Entry]) -> ImageData | None:
    """Return the data that the first entry of known data was trained with."""
    description = next((entry.data for entry in entries if entry.data), None)
    return None if description is None else rebuild(description)


def _no_data() -> NoReturn:
    raise ValueError("none of the models says which data it was trained with; give --data.dataset")


def _check(entries: Sequence[Entry], data: ImageData, request: Request) -> None:
    """Look for everything that measuring would stumble over: data of another kind, and models that do not sample."""
    request.protocol.evaluator.check(data)
    for entry in entries:
        own = None if entry.data is None or request.data is not None else rebuild(entry.data)
        if own is not None and own.protocol("test") != data.protocol("test"):
            raise ValueError(
                f"{entry.source} was trained on {own.name} {own.image_shape}, the first model on {data.name} "
                f"{data.image_shape}; compare models of the same data, or say by --data.dataset which are meant"
            )
        model = entry.load(data.image_shape)
        y = None if model.num_classes is None else torch.zeros(1, dtype=torch.long)
        if (shape := tuple(model.sample(1, y).shape[1:])) != tuple(data.image_shape):
            raise ValueError(
                f"{entry.source} draws images of shape {shape}, but those of {data.name} have "
                f"{tuple(data.image_shape)}; compare models of images of one shape"
            )
        if isinstance(model, ImagesOf) and len(model) < request.protocol.evaluator.num_samples:
            raise ValueError(
                f"{entry.source} has {len(model)} images, fewer than "
                f"num_samples={request.protocol.evaluator.num_samples}; give more, or a smaller --num_samples"
            )


def _calibrate(request: Request, plan: Plan, trainings: TrainingPlan) -> None:
    """Find out how long each recipe is to be trained, and so that each works, before any long training."""
    for recipe in request.recipes:
        saved = checkpoints(calibration_folder(trainings) / run_name(recipe))
        if run_name(recipe) in plan.schedules and next(saved, None) is not None:
            continue
        print(f"trying {recipe}, to find how many steps are {request.minutes:g} minutes")
        plan.schedules[run_name(recipe)] = calibrate(recipe, trainings)
        plan.save()


def _train(request: Request, plan: Plan, trainings: TrainingPlan) -> list[tuple[str, Trained]]:
    """Train each recipe with each seed; return recipes and trainings, the seeds of a recipe together."""
    todo = [(recipe, seed) for seed in range(request.seeds) for recipe in request.recipes]
    found: dict[tuple[str, int], Trained] = {}
    for i, (recipe, seed) in enumerate(todo):
        done = finished_training(recipe, seed, trainings)
        if done is None:
            left = (len(todo) - i) * request.minutes
            print(f"training {i + 1} of {len(todo)}: {recipe}, seed {seed}; {left:g} minutes of training left")
        found[recipe, seed] = done or train(recipe, seed, plan.schedules[run_name(recipe)], trainings)
    return [(recipe, found[recipe, seed]) for recipe in request.recipes for seed in range(request.seeds)]


def _measure(
    entries: Sequence[Entry], problems: Sequence[str], data: ImageData, request: Request
) -> tuple[Comparison, dict[str, Pictures]]:
    folder, protocol = request.output / "measured", request.protocol
    real = functools.cache(lambda: RealImages.of(data, protocol.evaluator))
    values, pictures_of_real = measured_real(protocol, data, real, folder)
    pictures, runs = {REAL_IMAGES: pictures_of_real}, []
    for i, (entry, problem) in enumerate(zip(entries, problems, strict=True)):
        print(f"measuring {i + 1} of {len(entries)}: {entry.name}, seed {entry.seed}")
        run, shown = measured(entry, protocol, data, real, folder)
        if problem and run.training is not None:
            run.training.is_finite = False
            run.warnings.append(f"Seed {run.seed}: {problem}")
        runs.append(run)
        pictures.setdefault(run.name, shown)
        gc.collect()
    floor = runs[0].protocol.get("floor", {}) | {"memorised": values["memorised"]}
    floor = {name: value for name, value in floor.items() if value is not None}
    today = datetime.date.today().isoformat()
    return Comparison(runs, floor, values["spectrum"], machine(protocol.device), today, request.command), pictures


def machine(device: torch.device) -> str:
    """Say what a comparison was made on."""
    cores = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    accelerator = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{accelerator}{cores}, torch {torch.__version__}"


def _digest(recipe: Path) -> str:
    """Return the SHA-256 of what a recipe says, comments left out."""
    return hashlib.sha256(json.dumps(yaml.safe_load(recipe.read_text()), sort_keys=True).encode()).hexdigest()
