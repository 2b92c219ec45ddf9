"""A comparison from its entries to its report: train what is to be trained, measure each once, and write."""

import dataclasses
import datetime
import functools
import gc
import os
import platform
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor

from lit_generative.agreement import check_agreement
from lit_generative.comparison.cache import kept
from lit_generative.comparison.entries import Entry, find_entries
from lit_generative.comparison.measure import evaluator_for, measure
from lit_generative.comparison.plan import Plan
from lit_generative.comparison.real_images import RealImages, draw_pictures
from lit_generative.comparison.request import ComparisonRequest
from lit_generative.contracts import ImageData
from lit_generative.description import rebuild
from lit_generative.devices import device_named
from lit_generative.evaluation import Evaluator
from lit_generative.evaluation.identity import code_digest, content_sum
from lit_generative.loggers import log_picture, log_table
from lit_generative.report.results import Comparison, Run
from lit_generative.report.summary import summarise
from lit_generative.report.write import write_report
from lit_generative.sampling import check_is_of_classes
from lit_generative.training.budget import Trained

__all__ = ["log_comparison", "run_comparison"]


def run_comparison(request: ComparisonRequest) -> Comparison:
    """Compare: what is there of an earlier run of the same request is used, and everything is kept for a later one.

    Raises:
        FileNotFoundError: If a checkpoint or extractor is missing.
        ImportError: If a model's class is not imported.
        ValueError: If a checkpoint is damaged, models and data do not fit together, or the folder is another's.
    """
    plan = Plan(request.output, request.settings, request.command)
    given = find_entries(request.checkpoints, request.names[: len(request.checkpoints)] or None)
    plan.check_folder()
    data = request.data or _data_of(given)
    if data is not None:
        _check(given, data, request)
    with plan.alone():
        return _compare(request, given, data)


def _compare(request: ComparisonRequest, given: list[Entry], data: ImageData | None) -> Comparison:
    """Train, measure and write, in a folder that is this comparison's own."""
    tried = _try(request)
    if (data := data or _data_of(tried)) is None:
        raise ValueError("none of the models says which data it was trained with; give --data.dataset")
    _check(tried, data, request)
    trained = _train(request)
    sources = [*request.checkpoints, *(done.checkpoint for _, done in trained)]
    problems = {done.checkpoint: done.problem for _, done in trained if done.problem}
    entries = find_entries(sources, [*(entry.name for entry in given), *(name for name, _ in trained)], problems)
    comparison = _measure(entries, problems, data, request)
    comparison.save(request.output / "results.json")
    write_report(request.output)
    if request.logger is not None:
        log_comparison(request.logger, comparison, request.output)
    return comparison


def _data_of(entries: Sequence[Entry]) -> ImageData | None:
    """Return the data that the first entry of known data was trained with."""
    description = next((entry.data for entry in entries if entry.data), None)
    return None if description is None else rebuild(description)


def _check(entries: Sequence[Entry], data: ImageData, request: ComparisonRequest) -> None:
    """Look for everything that measuring would stumble over: data of another kind, and models that do not sample."""
    evaluator = request.protocol.evaluator
    evaluator.check(data)
    for entry in entries:
        own = None if entry.data is None or request.data is not None else rebuild(entry.data)
        if own is not None and not _are_the_same(own, data):
            raise ValueError(
                f"{entry.source} was trained on {own.name} {own.image_shape}, the first model on {data.name} "
                f"{data.image_shape}{', which has other images' if own.name == data.name else ''}; compare models of "
                "the same data, or say by --data.dataset which are meant"
            )
        model = entry.load(data.image_shape)
        try:
            check_agreement(model, data)
        except ValueError as error:
            raise ValueError(f"{entry.source}: {error}") from None
        evaluator_for(model, evaluator, entry.source)
        check_is_of_classes(model, str(entry.source))
        y = None if model.num_classes is None else torch.zeros(1, dtype=torch.long)
        if (shape := tuple(model.sample(1, y).shape[1:])) != tuple(data.image_shape):
            raise ValueError(
                f"{entry.source} draws images of shape {shape}, but those of {data.name} have "
                f"{tuple(data.image_shape)}; compare models of images of one shape"
            )


def _are_the_same(one: ImageData, other: ImageData) -> bool:
    """Whether two data modules have the same test images, wherever these are and whatever they are called.

    The images themselves are read only where neither what is said of them nor their files' dates tell.
    """
    if one.fingerprint("test") == other.fingerprint("test"):
        return True
    about = [
        {k: v for k, v in data.protocol("test").items() if k not in ("dataset", "hparams")} for data in (one, other)
    ]
    return about[0] == about[1] and _content(one) == _content(other)


def _content(data: ImageData) -> list[int]:
    batches = list(data.loader("test"))
    return [sum(content_sum(batch["image"]) for batch in batches), sum(len(batch["image"]) for batch in batches)]


def _try(request: ComparisonRequest) -> list[Entry]:
    """Train each recipe for some seconds: before any long training it is seen to work."""
    sources = []
    for training in request.trainings:
        if not training.is_tried:
            print(f"trying {training.recipe} for some seconds, to see that it works")
        sources.append(training.tried)
    return find_entries(sources)


def _train(request: ComparisonRequest) -> list[tuple[str, Trained]]:
    """Train each recipe with each seed; return names and trainings, the seeds of a recipe together."""
    todo = list(product(range(request.seeds), request.trainings))  # all recipes have a seed before one has two
    for i, (seed, training) in enumerate(todo):
        if training.finished(seed) is None:
            left = ", ".join(f"{(len(todo) - i) * value:,g} {name}" for name, value in request.length.items())
            print(f"training {i + 1} of {len(todo)}: {training.recipe}, seed {seed}; {left} of training left")
            training.train(seed)
    names = request.names[len(request.checkpoints) :] or [training.name for training in request.trainings]
    named = zip(names, request.trainings, strict=True)
    return [(name, training.train(seed)) for name, training in named for seed in range(request.seeds)]


def _measure(
    entries: Sequence[Entry], problems: dict[Path, str], data: ImageData, request: ComparisonRequest
) -> Comparison:
    """Measure the real images and each entry, as far as that was not done before."""
    real = functools.cache(lambda: RealImages.of(data, request.protocol.evaluator))  # takes seconds
    of_real = _measured_real(data, real, request)
    runs = []
    for i, entry in enumerate(entries):
        print(f"measuring {i + 1} of {len(entries)}: {entry.name}, seed {entry.seed}")
        run = _measured(entry, data, real, request)
        if (problem := problems.get(entry.source)) and run.training is not None:
            run.training.is_finite = False
            run.warnings.append(f"Seed {run.seed}: {problem}")
        runs.append(run)
        gc.collect()
    return Comparison(
        runs,
        runs[0].protocol.get("floor", {}) | of_real["floor"],
        of_real["spectrum"],
        machine(device_named(request.protocol.device)),
        datetime.date.today().isoformat(),
        request.command,
        of_real["pictures"],
        runs[0].protocol.get("floor_spread", {}),
    )


def _measured(entry: Entry, data: ImageData, real: Callable[[], RealImages], request: ComparisonRequest) -> Run:
    protocol = request.protocol
    stamp = {"protocol": protocol.describe(), "source": entry.digest(), **_decides(data, protocol.evaluator)}

    def compute() -> tuple[dict[str, Any], dict[str, Tensor]]:
        model = entry.load(data.image_shape).to(device_named(protocol.device))
        run, pictures = measure(model, entry.name, entry.source, data, protocol, real())
        return dataclasses.asdict(run), pictures

    return Run.from_dict(kept(request.output, f"{entry.name}-{entry.seed}", stamp, compute))


def _measured_real(data: ImageData, real: Callable[[], RealImages], request: ComparisonRequest) -> dict[str, Any]:
    evaluator = request.protocol.evaluator
    stamp = {"num_real": evaluator.num_real, **_decides(data, evaluator)}

    def compute() -> tuple[dict[str, Any], dict[str, Tensor]]:
        spectrum = real().spectrum
        values = {"floor": real().floor, "spectrum": [] if spectrum is None else spectrum.tolist()}
        return values, draw_pictures(real().images, real().neighbours, real().mirrored)

    return kept(request.output, "real", stamp, compute)


def _decides(data: ImageData, evaluator: Evaluator) -> dict[str, Any]:
    """Return what decides the numbers beside the model and the protocol: images, what the extractor computes, code."""
    split = evaluator.split
    return {
        "data": data.protocol(split),
        "images": [data.fingerprint(split, evaluator.num_real), data.fingerprint("train")],
        "extractor": evaluator.extractor_for(data).fingerprint(data.image_shape),
        "metrics": code_digest(),
    }


def machine(device: torch.device) -> str:
    """Say what a comparison was made on."""
    cores = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    accelerator = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return f"{accelerator}{cores}, torch {torch.__version__}"


def log_comparison(logger: Logger, comparison: Comparison, folder: Path) -> None:
    """Give a logger the tables and plots of a comparison."""
    for table in summarise(comparison):
        rows = [[row.name, row.runs, *(cell.text for cell in row.cells)] for row in table.rows]
        log_table(logger, table.title, ["model", "runs", *table.headings], rows)
    for path in sorted(folder.glob("plots/*.png")):
        log_picture(logger, path.stem, path)
    logger.finalize("success")
