"""Everything that a report says of one model, measured."""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_generative.callbacks.likelihood import summarise
from lit_generative.comparison.entries import read_training
from lit_generative.comparison.folder_model import ImagesOf
from lit_generative.comparison.real_images import MOST_IMAGES, RealImages, make_pictures
from lit_generative.contracts import SamplesInSteps
from lit_generative.core import GenerativeModule
from lit_generative.data import AnyData
from lit_generative.evaluation import Evaluation, Evaluator, Neighbours, jackknife_errors, radial_spectrum, sharpness
from lit_generative.evaluation.reference import counter
from lit_generative.report.images import Pictures
from lit_generative.report.results import Point, Run
from lit_generative.sampling import inference

__all__ = ["bits_per_dim", "family", "measure", "parameters_of_sampling"]

_FAMILIES = {"vae": "VAE", "gan": "GAN", "diffusion": "DDPM", "report": "images"}  # by the folder of the class
_HALVES = 10  # of the samples, for standard errors
_FEWEST = 12  # samples whose halves can be measured


def measure(
    model: GenerativeModule,
    name: str,
    source: str | Path,
    data: AnyData,
    evaluator: Evaluator,
    *,
    curve: Sequence[int] = (),
    evaluations: int | None = None,
    likelihood_images: int = 100,
    likelihood_evaluations: int = 50,
    real: RealImages | None = None,
) -> tuple[Run, Pictures]:
    """Measure a model, by one lot of samples for all that is said of it, and one more for each point of the curve.

    Its parameters are all that are trained: for a GAN, those of both networks. How many of the parameters have a part
    in sampling is ``sampling_parameters`` in the protocol. Spectrum and nearest training images are those of at most
    2,000 samples.

    Args:
        model: Where it is, with the weights it has.
        name: Which model it is.
        source: Its checkpoint, which says how it was trained, as do the files beside it; else where it comes from.
        data: The real images.
        evaluator: The protocol.
        curve: Network evaluations a sample to measure the metrics of a denoising model at, too. Those that are not
            below its own, or with which it cannot sample, are left out.
        evaluations: The most network evaluations a sample that a denoising model may take; None: as many as it does.
        likelihood_images: Test images whose likelihood is estimated; 0: none, else at least 2.
        likelihood_evaluations: About how many times an estimate may ask the network about an image.
        real: ``RealImages.of(data, evaluator)``, made once for several models; None: it is made here.

    Returns:
        The numbers, and pictures of the first samples and of the training images nearest to them.

    Raises:
        ValueError: If model, data and evaluator do not fit together, a number cannot be as it is, even one step takes
            more than ``evaluations``, or a folder has fewer images than are to be drawn.
    """
    if likelihood_images < 0 or likelihood_images == 1:
        raise ValueError(f"likelihood_images={likelihood_images}: a standard error needs at least 2, and 0 is none")
    evaluator = _for_given_images(evaluator, model, source) if isinstance(model, ImagesOf) else evaluator
    with model.at_most(evaluations) if isinstance(model, SamplesInSteps) else nullcontext():
        real = real or RealImages.of(data, evaluator)
        found, samples = _sample(model, data, evaluator)
        run = _new_run(model, name, source, found)
        neighbours = _measure_pixels(run, samples, real)
        run.curve = _curve(model, data, evaluator, curve)
    run.likelihood = bits_per_dim(model, data, evaluator, likelihood_images, likelihood_evaluations)
    if run.likelihood:
        run.protocol["likelihood"] = {"num_images": likelihood_images, "evaluations": likelihood_evaluations}
    return run, make_pictures(samples, neighbours)


def _for_given_images(evaluator: Evaluator, model: ImagesOf, source: str | Path) -> Evaluator:
    """Draw all images in one batch, in which none comes twice."""
    if evaluator.num_samples > len(model):
        raise ValueError(
            f"num_samples is {evaluator.num_samples}, but {source} has {len(model)} images; ask for no more"
        )
    evaluator = copy.copy(evaluator)
    evaluator.batch_size = evaluator.num_samples
    return evaluator


def _sample(model: GenerativeModule, data: AnyData, evaluator: Evaluator) -> tuple[Evaluation, Tensor]:
    """Return the evaluation with standard errors, and the first of its samples, on the CPU."""
    kept: list[Tensor] = []

    def keep(images: Tensor) -> None:
        if (missing := MOST_IMAGES - sum(map(len, kept))) > 0:
            kept.append(images[:missing].cpu())

    halves = _HALVES if evaluator.num_samples >= _FEWEST else 0
    return evaluator.evaluate(model, data, halves=halves, on_samples=keep), torch.cat(kept)


def _new_run(model: GenerativeModule, name: str, source: str | Path, found: Evaluation) -> Run:
    """Return what is known of a model that needs no samples beyond those of the evaluation."""
    is_model = not isinstance(model, ImagesOf)
    return Run(
        name=name,
        source=str(source),
        family=family(model),
        protocol=found.protocol | {"sampling_parameters": parameters_of_sampling(model)},
        metrics=found.metrics,
        errors=found.errors,
        seed=model.noise_seed,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad) if is_model else None,
        evaluations=model.network_evaluations if is_model else None,
        images_per_second=found.images_per_second if is_model else None,
        missing=found.classes.get("missing", []),
        training=read_training(Path(source)),
        warnings=list(found.warnings),
    )


def family(model: GenerativeModule) -> str:
    """Return "VAE", "GAN" or "DDPM" for the models of these folders and their subclasses, else the class's own name."""
    for cls in type(model).__mro__:
        package, _, rest = cls.__module__.partition(".")
        if package == "lit_generative" and (found := _FAMILIES.get(rest.partition(".")[0])):
            return found
    return type(model).__name__


def _measure_pixels(run: Run, samples: Tensor, real: RealImages) -> Neighbours | None:
    """Add spectrum, sharpness and copies to a run, and their errors; points have none of these."""
    if real.spectrum is None or real.neighbours is None:
        return None
    neighbours = real.nearest(samples)
    run.spectrum = radial_spectrum(samples).tolist()
    statistic = _pixel_statistic(samples, neighbours, real.spectrum, real.neighbours)
    found = statistic(torch.arange(len(samples)))
    run.sharpness, run.memorised, run.nearest = (float(found[key]) for key in ("sharpness", "memorised", "nearest"))
    run.errors = run.errors | jackknife_errors(statistic, torch.arange(len(samples)), _HALVES)
    return neighbours


def _pixel_statistic(
    samples: Tensor, neighbours: Neighbours, spectrum: Tensor, held_out: Neighbours
) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return a function of which samples count, (M,)."""

    def statistic(index: Tensor) -> dict[str, Tensor]:
        chosen = Neighbours(neighbours.distances[index], neighbours.images[index])
        values = {
            "sharpness": sharpness(radial_spectrum(samples[index]), spectrum),
            "memorised": chosen.rate,
            "nearest": chosen.relative_distance(held_out),
        }
        return {name: torch.tensor(value) for name, value in values.items()}

    return statistic


def _curve(model: GenerativeModule, data: AnyData, evaluator: Evaluator, curve: Sequence[int]) -> list[Point]:
    if not isinstance(model, SamplesInSteps):
        return []
    points: dict[int, Point] = {}
    for limit in sorted({limit for limit in curve if limit < model.network_evaluations}):
        with ExitStack() as stack:
            try:
                stack.enter_context(model.at_most(limit))
            except ValueError:  # it cannot sample with so few
                continue
            if (count := model.network_evaluations) not in points:
                found = evaluator.evaluate(model, data)
                points[count] = Point(found.metrics, evaluations=count, images_per_second=found.images_per_second)
    return list(points.values())


def bits_per_dim(
    model: GenerativeModule, data: AnyData, evaluator: Evaluator, num_images: int, evaluations: int
) -> dict[str, tuple[float, float]]:
    """Estimate -log2 P / (C H W) of real images that were not trained on.

    Args:
        model: See :meth:`GenerativeModule.likelihoods`.
        data: Where the images come from.
        evaluator: Says which split, and seeds the estimates.
        num_images: How many images, always the same ones.
        evaluations: About how many times an estimate may ask the network about an image.

    Returns:
        Mean over images and standard error by the name of the estimate; {} if the model defines none.
    """
    if not num_images or type(model).likelihoods is GenerativeModule.likelihoods:
        return {}
    found: dict[str, list[Tensor]] = {}
    with counter("likelihoods", num_images, True) as bar, isolate_rng():
        for i, batch in enumerate(data.loader(evaluator.split, batch_size=100, limit=num_images)):
            x, y = model.unpack({name: value.to(model.device) for name, value in batch.items()})
            seed = int(np.random.SeedSequence([evaluator.seed, i]).generate_state(1)[0])
            generator = torch.Generator(model.device).manual_seed(seed)
            with inference(model, generator):
                nats = model.likelihoods(x, y, evaluations=evaluations, generator=generator)
            for name, value in nats.items():
                found.setdefault(name, []).append(value.detach().cpu().double())
            bar.update(len(x))
    metrics = summarise({name: torch.cat(values) for name, values in found.items()}, prod(data.image_shape))
    return {name: (metrics[f"{name}_bits_per_dim"], metrics[f"{name}_bits_per_dim_stderr"]) for name in found}


class _Used(TorchFunctionMode):
    """Notes the parameters that operations are given, ``seen``; to look at an attribute is no operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, nn.Parameter] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") != "__get__":
            for value in (*args, *(kwargs or {}).values()):
                for item in value if isinstance(value, list | tuple) else (value,):
                    if isinstance(item, nn.Parameter):
                        self.seen[id(item)] = item
        return func(*args, **(kwargs or {}))


def parameters_of_sampling(model: GenerativeModule) -> int:
    """Return how many parameters samples depend on, with those that are not trained, such as a guide's."""
    y = None if model.num_classes is None else torch.zeros(2, dtype=torch.long, device=model.device)
    with isolate_rng(), _Used() as used:
        model.sample(2, y, generator=torch.Generator(model.device).manual_seed(0))
    return sum(parameter.numel() for parameter in used.seen.values())
