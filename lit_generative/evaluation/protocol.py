"""The protocol by which every model is evaluated: what is sampled, what it is compared with, and the stamp."""

import dataclasses
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_generative.checks import check_count
from lit_generative.contracts import ImageData
from lit_generative.core import GenerativeModule
from lit_generative.evaluation.cache import TensorCache
from lit_generative.evaluation.extended import distances_by_class, extended_metrics
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.features import default_extractor, load_extractor
from lit_generative.evaluation.jackknife import quality_errors
from lit_generative.evaluation.metrics import SampleQuality, class_report, count_classes
from lit_generative.evaluation.progress import counter
from lit_generative.evaluation.reference import Reference
from lit_generative.evaluation.restoration import Given, Restoration
from lit_generative.evaluation.stamp import is_of_points, make_stamp, make_warnings
from lit_generative.evaluation.too_few import LEAST_IMAGES
from lit_generative.nn.image_conditions import ImageCondition
from lit_generative.pictures import to_uint8
from lit_generative.processes import gather, rank_and_world

__all__ = ["Evaluation", "Evaluator"]


@dataclasses.dataclass
class Evaluation:
    """What an evaluation found, and the protocol without which the numbers mean little.

    Attributes:
        metrics: Name to value. Fréchet and kernel distance are called ``fid`` and ``kid`` only in Inception's features;
            ``class_accuracy`` is the share of a conditional model's samples that the extractor puts into the class that
            they were asked to be of. A model that is told images has ``psnr``, in dB, of its samples against the images
            that these are of, and the same and the distances of a baseline without a model, such as ``bicubic_psnr``.
        classes: If the extractor is a classifier, its ``histogram`` of the samples by class name, the numbers that were
            ``expected``, and the names of ``missing`` and ``rare`` classes; of an extended evaluation, the
            ``distances`` by class; else empty.
        protocol: The stamp, plain data.
        warnings: Sentences to print beside the numbers.
        images_per_second: How fast the samples were drawn, by all processes together, behind the first batch, in which
            memory is found and kernels are chosen; no part of the result.
        errors: If asked for, standard errors of metrics over the choice of samples, by the delete-half jackknife; they
            are conditional on the real images and on the one training.
    """

    metrics: dict[str, float]
    classes: dict[str, Any]
    protocol: dict[str, Any]
    warnings: list[str]
    images_per_second: float | None = dataclasses.field(default=None, compare=False)
    errors: dict[str, float] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass
class _Drawn:
    """Samples of all processes: how many are not finite, how many are as asked by the extractor, their labels."""

    quality: SampleQuality
    broken: int
    as_asked: int
    labels: Tensor | None
    images_per_second: float


class Evaluator:
    """Compares samples of a model with real images that it was not trained on.

    It is a plain object: no weights of the extractor and no state of a metric get into a model or a checkpoint. The
    same seed gives the same samples on any number of processes. They are rounded to 256 levels, as real images are.
    Real features are cached on disk.

    Args:
        extractor: ``auto`` (the plane itself for points of known modes, ``fashion`` for Fashion-MNIST, else
            ``inception`` where its weights are, ``imagenet`` where it is installed, or ``random``), one of these, or
            ``clip``, ``dinov2``, ``inception:FILE.pth``, a file that ``lit-generative extractor`` wrote, see
            :func:`~lit_generative.evaluation.load_extractor`; or an :class:`Extractor`, which wraps any module that
            maps images in [-1, 1] to features (B, D).
        num_samples: Images to draw from the model. Papers use 50,000; the fewer, the higher the distance.
        num_real: Images of the split to compare with; by default all.
        split: Which real images.
        batch_size: Images sampled at a time. It decides, with the seed, which samples are drawn.
        seed: Seed of the samples.
        cache_dir: Folder for real features; by default ``$LIT_GENERATIVE_CACHE``, else ``~/.cache/lit_generative``.
        extended: Whether to compute FD-infinity, Vendi score, CMMD (in CLIP's features) and distances by class, too.

    Raises:
        ValueError: If a number is too small or the split is not one to evaluate on.
    """

    def __init__(
        self,
        extractor: str | Extractor = "auto",
        num_samples: int = 2000,
        num_real: int | None = None,
        split: Literal["val", "test"] = "test",
        batch_size: int = 250,
        seed: int = 0,
        cache_dir: str | None = None,
        extended: bool = False,
    ) -> None:
        check_count("num_samples", num_samples, at_least=LEAST_IMAGES)
        check_count("num_real", num_real, at_least=LEAST_IMAGES)
        check_count("batch_size", batch_size)
        check_count("seed", seed, at_least=0)
        if split not in ("val", "test"):
            raise ValueError(f"split={split!r}: it must be val or test, images that models are not trained on")
        self.extractor = extractor
        self.num_samples = num_samples
        self.num_real = num_real
        self.split: Literal["val", "test"] = split
        self.batch_size = batch_size
        self.seed = seed
        self.cache = TensorCache(cache_dir)
        self.extended = extended
        self._loaded: Extractor | None = None
        self._loaded_from: str | Extractor | None = None

    def check(self, data: ImageData) -> None:
        """Load the extractor and try it on an image of the data's shape: to be called before a long training.

        Raises:
            FileNotFoundError: If the extractor's weights are missing.
            ValueError: If the extractor does not exist, is damaged, cannot take these images, or gives the same ones
                other features a second time, or there are none.
        """
        data.num_images("train")
        data.num_images(self.split)
        self.extractor_for(data)

    def extractor_for(self, data: ImageData) -> Extractor:
        """Return the extractor, which is loaded once, tried on images of the data's shape; see :meth:`check`."""
        spec = default_extractor(data) if self.extractor == "auto" else self.extractor
        if self._loaded is None or self._loaded_from != spec:
            with isolate_rng():  # a network draws weights before it loads its own
                self._loaded, self._loaded_from = load_extractor(spec), spec
        shape = tuple(data.image_shape)
        try:
            self._loaded.fingerprint(data.image_shape)
        except (RuntimeError, IndexError, TypeError) as error:
            raise ValueError(f"extractor {self._loaded.name!r} cannot take images of shape {shape}: {error}") from error
        return self._loaded

    @torch.no_grad()
    def evaluate(
        self,
        model: GenerativeModule,
        data: ImageData,
        *,
        progress: bool = True,
        halves: int = 0,
        on_samples: Callable[[Tensor, Tensor], None] | None = None,
    ) -> Evaluation:
        """Sample, compare, and say how; every process of a distributed run has to call it.

        The global random state is left as it was.

        Args:
            model: What to evaluate, where it is and with the weights it has.
            data: Where the real images come from.
            progress: Show progress bars, on rank 0.
            halves: Random halves of the samples to estimate the metrics' standard errors from; 10 are usual, 0: none.
            on_samples: Called with each batch of this process's samples (B, C, H, W), as they are compared, and their
                features (B, D), for what else is to be measured.

        Raises:
            FileNotFoundError: If the extractor's weights are missing.
            ValueError: If extractor, data and model do not fit together, or there are too few samples for ``halves``.
        """
        if halves:
            check_count("num_samples", self.num_samples, at_least=12, hint="standard errors are taken from its halves")
        if model.num_classes is not None and data.num_classes not in (None, model.num_classes):
            raise ValueError(f"the model has num_classes={model.num_classes}, but {data.name} has {data.num_classes}")
        device = torch.device("cpu") if model.device.type == "mps" else model.device  # MPS has no float64
        extractor = self.extractor_for(data).to(device)
        with isolate_rng():
            real = Reference.make(extractor, data, self.split, self.num_real, self.num_samples, self.cache, progress)
            given = Given.of(model, data, self.split, self.num_samples, self.seed)
            restoration = self._restoration(model, given, extractor, real)
            drawn = self._compare(model, data, extractor, real, progress, on_samples, given, restoration)
        quality = drawn.quality
        metrics = {extractor.metric_names.get(name, name): value.item() for name, value in quality.compute().items()}
        collected, classes = quality.collected(), {}
        unmeasured = int((~collected[1].isfinite()).any(dim=1).sum())
        if extractor.class_names is not None and not unmeasured:
            classes = class_report(extractor.class_names, *(count_classes(extractor, rows) for rows in collected))
            metrics["missing_classes"] = float(len(classes["missing"]))
        without_accuracy = _no_accuracy(model, data, extractor)
        if without_accuracy is None and not unmeasured:
            metrics["class_accuracy"] = drawn.as_asked / self.num_samples
        errors = quality_errors(*collected, extractor, halves) if halves and not unmeasured else {}
        if halves and (accuracy := metrics.get("class_accuracy")) is not None:
            errors["class_accuracy"] = (accuracy * (1 - accuracy) / self.num_samples) ** 0.5  # a mean needs no halves
        settings = {"split": self.split, "num_fake": self.num_samples, "batch_size": self.batch_size, "seed": self.seed}
        stamp = make_stamp(settings, model, data, extractor, real)
        warnings = make_warnings(self.num_samples, drawn.broken, extractor, real, unmeasured, without_accuracy or "")
        if restoration is not None and not unmeasured:
            metrics |= restoration.compute()
        if self.extended and not unmeasured:
            found, floor = extended_metrics(*collected, extractor)
            metrics |= found
            stamp["floor"] |= floor
            classes |= distances_by_class(*collected, extractor, data, gather(real.labels), drawn.labels)
        return Evaluation(metrics, classes, stamp, warnings, drawn.images_per_second, errors)

    def _compare(
        self,
        model: GenerativeModule,
        data: ImageData,
        extractor: Extractor,
        real: Reference,
        progress: bool,
        on_samples: Callable[[Tensor, Tensor], None] | None,
        given: Given | None,
        restoration: Restoration | None,
    ) -> _Drawn:
        """Draw the samples, of all processes, and collect what is known of them and of the real images."""
        device = extractor.device
        quality = SampleQuality(real.features.shape[1], extractor.metrics).to(device)
        quality.update(real.features, real=True)
        broken, as_asked, timed, seconds = 0, 0, 0, 0.0
        asked: list[Tensor] = []
        told = self._labels(model, real.label_counts) if given is None else given.y
        for start, images, labels, duration in self._samples(model, data, told, progress):
            if duration is not None:
                seconds, timed = seconds + duration, timed + len(images)
            broken += int((~images.isfinite()).flatten(1).any(dim=1).sum())
            images = images.to(device).nan_to_num(0).clamp(-1, 1)
            if not is_of_points(data):
                images = to_uint8(images).float() / 127.5 - 1
            features = torch.cat([extractor(part) for part in images.split(extractor.max_batch)])
            if on_samples is not None:
                on_samples(images, features)
            if restoration is not None:
                restoration.update(images, start)
            quality.update(features, real=False)
            if labels is not None and given is None:
                asked.append(labels.to(device))
                if extractor.class_names is not None:
                    as_asked += int((extractor.classify(features).argmax(dim=1) == asked[-1]).sum())
        found = gather(torch.tensor([[broken, as_asked, timed, seconds]], dtype=torch.double, device=device))
        broken, as_asked, timed, seconds = *(int(n) for n in found[:, :3].sum(dim=0)), float(found[:, 3].max())
        labels = gather(torch.cat(asked)) if model.num_classes is not None else None
        return _Drawn(quality, broken, as_asked, labels, timed / seconds if seconds else 0.0)

    def _samples(
        self, model: GenerativeModule, data: ImageData, told: Tensor | None, progress: bool
    ) -> Iterator[tuple[int, Tensor, Tensor | None, float | None]]:
        """This process's share of the samples (every ``world``-th batch), the first one's place, labels and seconds.

        The first batch warms up, and has no seconds; where there is no other, a device draws it once more to be timed.
        """
        rank, world = rank_and_world()
        batches = range(rank, -(-self.num_samples // self.batch_size), world)
        is_alone = len(batches) == 1
        with counter("samples", self.num_samples, progress) as bar:
            for batch in batches:
                start, stop = batch * self.batch_size, min((batch + 1) * self.batch_size, self.num_samples)
                y = None if told is None else told[start:stop].to(model.device)
                images, duration = self._draw(model, batch, stop - start, y)
                if images.shape != (stop - start, *data.image_shape):
                    raise ValueError(
                        f"the model's samples have shape {tuple(images.shape)}, but the images of {data.name} have "
                        f"{tuple(data.image_shape)}: it was trained on other data"
                    )
                if is_alone and model.device.type != "cpu":
                    _, duration = self._draw(model, batch, stop - start, y)
                yield start, images, y, duration if is_alone or batch != rank else None
                bar.update(len(images))

    def _draw(self, model: GenerativeModule, batch: int, n: int, y: Tensor | None) -> tuple[Tensor, float]:
        """Draw the samples of one batch, always the same, and measure the seconds."""
        seed = int(np.random.SeedSequence([self.seed, batch]).generate_state(1)[0])
        torch.manual_seed(seed)  # for a sample() that ignores its generator
        generator = torch.Generator(model.device).manual_seed(seed)
        _wait_for(model.device)  # else the extractor's work on the batch before would count
        begin = perf_counter()
        images = model.sample(n, y, generator=generator)
        _wait_for(model.device)
        return images, perf_counter() - begin

    def _restoration(
        self, model: GenerativeModule, given: Given | None, extractor: Extractor, real: Reference
    ) -> Restoration | None:
        """Return what compares samples with the very images that they are made from, where the model is told any."""
        if given is None or not isinstance(model.condition, ImageCondition):
            return None
        quality = SampleQuality(real.features.shape[1], extractor.metrics).to(extractor.device)
        quality.update(real.features, real=True)
        return Restoration(given, model.condition, extractor, quality)

    def _labels(self, model: GenerativeModule, label_counts: Tensor | None) -> Tensor | None:
        """Labels (num_samples,) in the real images' proportions (equal ones if those have no labels), shuffled."""
        if model.num_classes is None:
            return None
        counts = torch.ones(model.num_classes) if label_counts is None else label_counts
        quantiles = (torch.arange(self.num_samples, dtype=torch.double) + 0.5) / self.num_samples
        labels = torch.searchsorted(counts.double().cumsum(0) / counts.sum(), quantiles)
        return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.seed))]


def _wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given; the CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _no_accuracy(model: GenerativeModule, data: ImageData, extractor: Extractor) -> str | None:
    """Return why a model has no class accuracy: "" where none is expected; None if it has one."""
    if model.num_classes is None or extractor.class_names is None:
        return ""
    if data.class_names == extractor.class_names and len(extractor.class_names) == model.num_classes:
        return None
    names = [", ".join(map(str, list(names or ["unknown"])[:3])) for names in (extractor.class_names, data.class_names)]
    return (
        f"no class accuracy: extractor {extractor.name} tells {len(extractor.class_names)} classes ({names[0]}, …), "
        f"the data have {data.num_classes or 'none'} ({names[1]}, …)"
    )
