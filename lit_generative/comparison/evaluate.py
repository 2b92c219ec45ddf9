"""One set of samples against one of real images, wherever they come from: the whole protocol, kept and reported."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import torch

from lit_generative.checks import check_count
from lit_generative.comparison.cache import kept
from lit_generative.comparison.entries import find_entries
from lit_generative.comparison.folder_model import ImagesOf
from lit_generative.comparison.given import GivenImages, Source, draw, is_checkpoint
from lit_generative.comparison.measure import MeasurementProtocol, evaluator_for, measure
from lit_generative.comparison.plan import Plan
from lit_generative.comparison.real_images import RealImages, draw_pictures
from lit_generative.comparison.run import machine
from lit_generative.core import GenerativeModule
from lit_generative.devices import device_named
from lit_generative.evaluation import Evaluator, load_extractor
from lit_generative.evaluation.identity import code_digest, weights_digest
from lit_generative.evaluation.too_few import LEAST_IMAGES
from lit_generative.files import check_folder
from lit_generative.report.results import Comparison, Run
from lit_generative.report.write import write_report

__all__ = ["evaluate_samples"]

_FROM_A_MODEL = 2000  # samples, unless told otherwise


def evaluate_samples(
    samples: str | Path,
    real: str | Path,
    training: str | Path | None = None,
    output: str | Path = "runs/evaluation",
    image_size: int | None = None,
    num_samples: int | None = None,
    extractor: str = "auto",
    seed: int = 0,
    device: str = "auto",
    download: bool = False,
    command: str = "",
) -> Comparison:
    """Compare samples with real images, and write ``report.html``, ``report.md`` and ``results.json``.

    What was measured before, of the same images, by the same extractor and the same version of the metrics, is read.

    Args:
        samples: A folder of images, an archive, a data set (all of its splits), or a checkpoint to draw from.
        real: The same; of a checkpoint, its samples stand for real images.
        training: The images that a model was trained on, for the check for copies; null: the real ones.
        output: The folder of the report.
        image_size: The shorter side that all images are resized to; null: as they are if they have one size, else the
            smaller of the two sets', and 64 for images of mixed sizes.
        num_samples: How many samples to compare; null: all given ones, and of a checkpoint 2,000.
        extractor: auto, random, imagenet, inception, clip, dinov2 or fashion, one with a file of weights, such as
            inception:FILE.pth, or a file of ``lit-generative extractor``.
        seed: Of a checkpoint's samples.
        device: Where to measure: cpu, cuda:1; auto: the GPU if there is one.
        download: Whether weights of the extractor that are not in the cache are fetched; else nothing is.
        command: The command line that repeats it.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        OSError: If weights cannot be fetched.
        FloatingPointError: If a checkpoint's weights are not finite.
        ValueError: If images cannot be read, or there are fewer than six, or the folder holds something else.
    """
    check_count("image_size", image_size, at_least=4, hint="it is a number of pixels")
    check_count("num_samples", num_samples, at_least=LEAST_IMAGES)
    options = {"image_size": image_size, "num_samples": num_samples, "extractor": extractor, "seed": seed}
    samples, real, training = str(samples), str(real), None if training is None else str(training)
    settings = {"samples": samples, "real": real, "training": training, **options}
    plan = Plan(Path(output), settings, command)
    plan.check_folder()
    check_folder(plan.folder, "output")
    if download:
        load_extractor(extractor, download=True)
    print("reading images")
    model, data, name, resizes = _read(samples, real, training, image_size, num_samples or _FROM_A_MODEL, seed)
    count = num_samples or (len(model) if isinstance(model, ImagesOf) else _FROM_A_MODEL)
    evaluator = Evaluator(extractor, num_samples=count, seed=seed, extended=True)
    evaluator.check(data)
    evaluator_for(model, evaluator, samples)
    protocol = MeasurementProtocol(evaluator, likelihood_images=0, device=device)
    with plan.alone():
        run, of_real = _measured(model, name, samples, data, protocol, training is not None, plan.folder)
        if resizes:
            height, width = data.image_shape[1:]
            run.warnings.append(f"images were resized to {height}x{width}: sharpness is of those")
        comparison = Comparison(
            [run],
            run.protocol["floor"] | of_real["floor"],
            of_real["spectrum"],
            machine(device_named(device)),
            datetime.date.today().isoformat(),
            command,
            of_real["pictures"],
            run.protocol["floor_spread"],
        )
        comparison.save(plan.folder / "results.json")
        write_report(plan.folder)
    return comparison


def _read(
    samples: str, real: str, training: str | None, image_size: int | None, count: int, seed: int
) -> tuple[GenerativeModule, GivenImages, str, bool]:
    """Return what draws the samples, the real images, the samples' name, and whether any image was resized."""
    given = dict.fromkeys(source for source in (samples, real, training) if source is not None)
    entries = {source: find_entries([source])[0] for source in given if is_checkpoint(source)}
    models = {source: entry.load() for source, entry in entries.items()}
    drawn = [_shape_of(model) for model in models.values()]
    found = [Source(source).shape() for source in given if source not in models]
    channels, size = _common_shape(drawn, found, image_size)
    images = {
        source: draw(models[source], count, seed) if source in models else Source(source).read(size, channels)
        for source in dict.fromkeys((real, training or real))
    }
    resizing = "none" if size is None else f"PIL, bicubic, antialiased, to {size}x{size}; centre crop"
    data = GivenImages(Path(real).name or real, images[real], images[training or real], resizing)
    if samples in models:
        return models[samples], data, entries[samples].name, size is not None
    return ImagesOf(Source(samples).read(size, channels)), data, Path(samples).resolve().name, size is not None


def _shape_of(model: GenerativeModule) -> tuple[int, int, int]:
    channels, height, width = draw(model, 1, 0).shape[1:]
    return channels, height, width


def _common_shape(
    drawn: list[tuple[int, int, int]], found: list[tuple[tuple[int, int, int], bool]], image_size: int | None
) -> tuple[int, int | None]:
    """Return the channels that all images get, and the size that they are resized to; None: they have one size."""
    if len(set(drawn)) > 1:
        raise ValueError(f"the checkpoints draw images of {' and '.join(map(str, drawn))}; compare models of one shape")
    shapes = [*drawn, *(shape for shape, _ in found)]
    channels = drawn[0][0] if drawn else max(shape[0] for shape in shapes)
    are_alike = len({shape[1:] for shape in shapes}) == 1 and not any(is_mixed for _, is_mixed in found)
    if are_alike and (image_size is None or drawn):
        return channels, None
    if drawn and drawn[0][1] != drawn[0][2]:
        raise ValueError(f"the checkpoint draws images of {drawn[0]}, not square ones; give real images of that size")
    return channels, drawn[0][1] if drawn else image_size or min(min(shape[1:]) for shape in shapes)


def _measured(
    model: GenerativeModule,
    name: str,
    source: str,
    data: GivenImages,
    protocol: MeasurementProtocol,
    has_training: bool,
    output: Path,
) -> tuple[Run, dict[str, Any]]:
    """Return the run and what is known of the real images' pixels, from the folder if they were measured before."""
    evaluator = protocol.evaluator
    content = data.fingerprint("test"), data.fingerprint("train")
    drawn = weights_digest(model) if not isinstance(model, ImagesOf) else _digest_of(model)
    decides = {
        "protocol": protocol.describe(),
        "images": content,
        "samples": drawn,
        "extractor": evaluator.extractor_for(data).fingerprint(data.image_shape),
        "metrics": code_digest(),
        "resizing": data.resizing,
    }
    real = RealImages.of(data, evaluator) if has_training else RealImages.of_one_set(data, evaluator)

    def of_real() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        values = {"floor": real.floor, "spectrum": [] if real.spectrum is None else real.spectrum.tolist()}
        return values, draw_pictures(real.images, real.neighbours if has_training else None, real.mirrored)

    def of_samples() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        run, pictures = measure(model.to(device_named(protocol.device)), name, source, data, protocol, real)
        return dataclasses.asdict(run), pictures

    found = kept(output, "real", {**decides, "samples": None}, of_real)
    return Run.from_dict(kept(output, "samples", decides, of_samples)), found


def _digest_of(model: ImagesOf) -> str:
    return GivenImages("", model.images, model.images, "").fingerprint("test")
