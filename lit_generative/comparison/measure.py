"""Everything that a report says of one model, measured."""

import copy
import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from math import prod
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lit_generative.checks import check_count, check_range
from lit_generative.comparison.folder_model import ImagesOf
from lit_generative.comparison.history import read_training
from lit_generative.comparison.real_images import MOST_IMAGES, RealImages, draw_pictures
from lit_generative.contracts import ImageData, SamplesInSteps
from lit_generative.core import GenerativeModule
from lit_generative.devices import device_named
from lit_generative.eight_bit import bits_per_dim
from lit_generative.evaluation import Evaluation, Evaluator, Neighbours, copied, jackknife_errors, radial_spectrum
from lit_generative.evaluation.likelihood import defines_likelihoods, estimate_likelihoods
from lit_generative.evaluation.memorisation import copies_in_features
from lit_generative.evaluation.metrics import frechet_of
from lit_generative.evaluation.spectrum import sharpness
from lit_generative.report.results import Point, Run

__all__ = ["MeasurementProtocol", "bits_of_images", "evaluator_for", "measure", "parameters_of_sampling"]

_HALVES = 10  # of the samples, for standard errors
_FEWEST = 12  # samples whose halves can be measured


@dataclasses.dataclass(frozen=True)
class MeasurementProtocol:
    """How all models of a comparison are measured.

    Attributes:
        evaluator: Draws samples and compares them.
        evaluations: The most network evaluations a sample of a diffusion model; null: as its own sampler has
            it, and the curve shows fewer.
        curve: Numbers of network evaluations at which diffusion models are measured as well.
        likelihood_images: Test images whose likelihood is estimated, of models that define one; 0: none.
        likelihood_evaluations: About how many times an estimate may ask the network about an image.
        device: Where to measure: cpu, cuda:1; auto: the GPU if there is one.

    Raises:
        ValueError: If a number is too small, or there is no such device.
    """

    evaluator: Evaluator
    evaluations: int | None = None
    curve: Sequence[int] = (5, 10, 20)
    likelihood_images: int = 200
    likelihood_evaluations: int = 50
    device: str = "auto"

    def __post_init__(self) -> None:
        check_count("evaluations", self.evaluations, hint="null is the sampler's own number")
        for evaluations in self.curve:
            check_range("curve", evaluations, at_least=1)
        check_count("likelihood_images", self.likelihood_images or None, at_least=2, hint="0 is none")
        check_count("likelihood_evaluations", self.likelihood_evaluations)
        device_named(self.device)

    def describe(self) -> dict[str, Any]:
        """Return all that decides the numbers, as plain data."""
        extractor = self.evaluator.extractor
        names = ("num_samples", "num_real", "split", "batch_size", "seed", "extended")
        return {name: getattr(self.evaluator, name) for name in names} | {
            "extractor": extractor if isinstance(extractor, str) else extractor.digest,
            "evaluations": self.evaluations,
            "curve": list(self.curve),
            "likelihood_images": self.likelihood_images,
            "likelihood_evaluations": self.likelihood_evaluations,
            "device": device_named(self.device).type,
        }


def measure(
    model: GenerativeModule,
    name: str,
    source: str | Path,
    data: ImageData,
    protocol: MeasurementProtocol,
    real: RealImages,
) -> tuple[Run, dict[str, Tensor]]:
    """Measure a model, by one lot of samples for all that is said of it, and one more for each point of the curve.

    Its parameters are all that are trained: for a GAN, those of both networks. How many of the parameters have a part
    in sampling is ``sampling_parameters`` in the protocol. Spectrum and nearest training images are those of at most
    2,000 samples. Points of the curve that are not below the model's own evaluations, or with which it cannot sample,
    are left out.

    Args:
        model: Where it is, with the weights it has.
        name: Which model it is.
        source: Its checkpoint, which says how it was trained, as do the files beside it; else where it comes from.
        data: The real images.
        protocol: How.
        real: What was measured of the real images.

    Returns:
        The numbers, and pictures (C, H, W) of the first samples and of their nearest training images, by name.

    Raises:
        ValueError: If model, data and evaluator do not fit together, even one step takes more than
            ``protocol.evaluations``, or a folder has fewer images than are to be drawn.
    """
    evaluator = evaluator_for(model, protocol.evaluator, source)
    with _at_most(model, protocol.evaluations):
        found, samples, features = _sample(model, data, evaluator)
        run = _new_run(model, name, source, found)
        neighbours = _measure_pixels(run, samples, real)
        _measure_copies(run, features, real)
        run.curve = _curve(model, data, protocol)
    options = {"num_images": protocol.likelihood_images, "evaluations": protocol.likelihood_evaluations}
    found_bits = bits_of_images(model, data, evaluator, *options.values())
    if found_bits:
        run.likelihood = {name: _mean_and_error(bits) for name, bits in found_bits.items()}
        run.likelihood_images = {name: bits.tolist() for name, bits in found_bits.items()}
        run.protocol["likelihood"] = options
    return run, draw_pictures(samples, *neighbours)


def _at_most(model: GenerativeModule, evaluations: int | None) -> AbstractContextManager[None]:
    return model.at_most(evaluations) if isinstance(model, SamplesInSteps) else nullcontext()


def evaluator_for(model: GenerativeModule, evaluator: Evaluator, source: str | Path) -> Evaluator:
    """Return an evaluator for a model; of given images it draws all in one batch, in which none comes twice.

    Raises:
        ValueError: If fewer images are given than are to be drawn.
    """
    if not isinstance(model, ImagesOf):
        return evaluator
    if evaluator.num_samples > len(model):
        raise ValueError(
            f"{source} has {len(model)} images, fewer than num_samples={evaluator.num_samples}; give more, or a "
            "smaller --num_samples"
        )
    evaluator = copy.copy(evaluator)
    evaluator.batch_size = evaluator.num_samples
    return evaluator


def _sample(model: GenerativeModule, data: ImageData, evaluator: Evaluator) -> tuple[Evaluation, Tensor, Tensor]:
    """Return the evaluation with standard errors, and the first of its samples and their features, on the CPU."""
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(images: Tensor, features: Tensor) -> None:
        if (missing := MOST_IMAGES - sum(len(images) for images, _ in kept)) > 0:
            kept.append((images[:missing].cpu(), features[:missing].cpu()))

    halves = _HALVES if evaluator.num_samples >= _FEWEST else 0
    found = evaluator.evaluate(model, data, halves=halves, on_samples=keep)
    images, features = map(torch.cat, zip(*kept, strict=True))
    return found, images, features


def _new_run(model: GenerativeModule, name: str, source: str | Path, found: Evaluation) -> Run:
    """Return what is known of a model that needs no samples beyond those of the evaluation."""
    is_model = not isinstance(model, ImagesOf)
    return Run(
        name=name,
        source=str(source),
        family=model.family or type(model).__name__,
        protocol=found.protocol | {"sampling_parameters": parameters_of_sampling(model)},
        metrics=found.metrics,
        errors=found.errors,
        seed=model.noise_seed,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad) if is_model else None,
        evaluations=model.network_evaluations if is_model else None,
        images_per_second=found.images_per_second if is_model else None,
        missing=found.classes.get("missing", []),
        by_class=found.classes.get("distances", {}),
        training=read_training(Path(source)),
        warnings=list(found.warnings),
    )


def _measure_pixels(run: Run, samples: Tensor, real: RealImages) -> tuple[Neighbours | None, Neighbours | None]:
    """Add spectrum, sharpness and copies to a run, and their errors; points have none of these."""
    if real.spectrum is None or real.neighbours is None:
        return None, None
    spectrum, held_out = real.spectrum, real.neighbours
    neighbours, mirrored = real.nearest(samples)
    is_copy = copied(neighbours, mirrored).double()

    def statistic(index: Tensor) -> dict[str, Tensor]:
        chosen = Neighbours(neighbours.distances[index], neighbours.images[index])
        values = {
            "sharpness": sharpness(radial_spectrum(samples[index]), spectrum),
            "memorised": float(is_copy[index].mean()),
            "nearest": chosen.relative_distance(held_out),
        }
        return {name: torch.tensor(value) for name, value in values.items()}

    everything = torch.arange(len(samples))
    run.spectrum = radial_spectrum(samples).tolist()
    run.metrics = run.metrics | {name: float(value) for name, value in statistic(everything).items()}
    run.errors = run.errors | jackknife_errors(statistic, everything, _HALVES)
    return neighbours, mirrored


def _measure_copies(run: Run, features: Tensor, real: RealImages) -> None:
    """Add to a run what its samples' features (M, D) say of copies, and the errors; nothing of points.

    The gap is how much nearer samples are, by the Fréchet distance, to training images than to as many real images that
    were not trained on: above 0 if the model knows its training images better than others. There is none where no
    others are given.
    """
    if real.training is None or len(real.training) < 2 or not features.isfinite().all():
        return
    training, unseen = real.training, real.features
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))
    columns = copies_in_features(features, training)

    def statistic(index: Tensor) -> dict[str, Tensor]:
        found = {name: values[index].mean() for name, values in columns.items()}
        if unseen is None:
            return found
        n, chosen = min(len(unseen), len(training)), features[index]
        return found | {"train_gap": frechet_of(unseen[:n], chosen) - frechet_of(training[order[:n]], chosen)}

    everything = torch.arange(len(features))
    run.metrics = run.metrics | {name: float(value) for name, value in statistic(everything).items()}
    run.errors = run.errors | jackknife_errors(statistic, everything, _HALVES)
    run.protocol["num_training"] = len(real.training)


def _curve(model: GenerativeModule, data: ImageData, protocol: MeasurementProtocol) -> list[Point]:
    """Measure a model that samples in steps with fewer of them."""
    if not isinstance(model, SamplesInSteps):
        return []
    points: dict[int, Point] = {}
    for limit in sorted({limit for limit in protocol.curve if limit < model.network_evaluations}):
        with ExitStack() as stack:
            try:
                stack.enter_context(model.at_most(limit))
            except ValueError:  # it cannot sample with so few
                continue
            if (count := model.network_evaluations) not in points:
                found = protocol.evaluator.evaluate(model, data)
                points[count] = Point(found.metrics, evaluations=count, images_per_second=found.images_per_second)
    return list(points.values())


def bits_of_images(
    model: GenerativeModule, data: ImageData, evaluator: Evaluator, num_images: int, evaluations: int
) -> dict[str, Tensor]:
    """Estimate -log2 P / (C H W) of real images that were not trained on.

    Args:
        model: See :meth:`GenerativeModule.likelihoods`.
        data: Where the images come from.
        evaluator: Says which split, and seeds the estimates.
        num_images: How many images, always the same ones.
        evaluations: About how many times an estimate may ask the network about an image.

    Returns:
        That of each image, (num_images,), by the name of the estimate; {} if the model defines none.
    """
    if not num_images or not defines_likelihoods(model):
        return {}
    with isolate_rng():
        found = estimate_likelihoods(
            model, data, evaluator.split, num_images, evaluations=evaluations, seed=evaluator.seed
        )
    return {name: bits_per_dim(nats, prod(data.image_shape)) for name, nats in found.items()}


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


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
