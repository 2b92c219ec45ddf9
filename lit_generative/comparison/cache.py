"""Measurements that are kept: a model is measured again only if its checkpoint or the protocol changed."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lit_generative.comparison.entries import Entry
from lit_generative.comparison.measure import RealImages, measure
from lit_generative.contracts import ImageData
from lit_generative.evaluation import Evaluator
from lit_generative.evaluation.extractors import file_digest
from lit_generative.files import write_json
from lit_generative.report.images import Pictures
from lit_generative.report.results import Run

__all__ = ["Protocol", "measured", "measured_real"]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How all models of a comparison are measured.

    Attributes:
        evaluator: Draws samples and compares them.
        evaluations: The most network evaluations a sample of a denoising model; None: as its sampler has it.
        curve: Numbers of network evaluations at which denoising models are measured as well.
        likelihood_images: Test images whose likelihood is estimated; 0: none.
        device: Where the models are.

    Raises:
        ValueError: If a number is too small.
    """

    evaluator: Evaluator
    evaluations: int | None
    curve: Sequence[int]
    likelihood_images: int
    device: torch.device

    def __post_init__(self) -> None:
        if self.evaluations is not None and self.evaluations < 1:
            raise ValueError(f"evaluations={self.evaluations}: must be at least 1, or null for the sampler's own")
        if any(evaluations < 1 for evaluations in self.curve):
            raise ValueError(f"curve={list(self.curve)}: numbers of network evaluations must be at least 1")
        if self.likelihood_images < 0 or self.likelihood_images == 1:
            raise ValueError(f"likelihood_images={self.likelihood_images}: use 2 or more, or 0 for none")

    def describe(self) -> dict[str, Any]:
        """Return all that decides the numbers, as plain data."""
        extractor = self.evaluator.extractor
        names = ("num_samples", "num_real", "split", "batch_size", "seed")
        return {name: getattr(self.evaluator, name) for name in names} | {
            "extractor": extractor if isinstance(extractor, str) else extractor.digest,
            "evaluations": self.evaluations,
            "curve": list(self.curve),
            "likelihood_images": self.likelihood_images,
            "device": self.device.type,
        }


def measured(
    entry: Entry, protocol: Protocol, data: ImageData, real: Callable[[], RealImages], folder: Path
) -> tuple[Run, Pictures]:
    """Return what was measured of a entry, and measure it if that is not there.

    Args:
        entry: Which.
        protocol: How.
        data: On which images.
        real: Returns what was measured of real images, which takes seconds.
        folder: The files ``NAME-SEED.json`` and ``.safetensors`` are in it.
    """
    path = folder / f"{entry.name}-{entry.seed}"
    stamp = {
        "protocol": protocol.describe(),
        "data": data.protocol(protocol.evaluator.split),
        "source": _digest(entry.source),
    }
    if (found := _read(path, stamp)) is not None:
        return Run.from_dict(found["run"]), _read_pictures(path)
    model = entry.load(data.image_shape).to(protocol.device)
    run, pictures = measure(
        model,
        entry.name,
        entry.source,
        data,
        protocol.evaluator,
        curve=protocol.curve,
        evaluations=protocol.evaluations,
        likelihood_images=protocol.likelihood_images,
        real=real(),
    )
    _write(path, {"stamp": stamp, "run": dataclasses.asdict(run)}, pictures)
    return run, pictures


def measured_real(
    protocol: Protocol, data: ImageData, real: Callable[[], RealImages], folder: Path
) -> tuple[dict[str, Any], Pictures]:
    """Return ``memorised`` and ``spectrum`` of real images, and pictures; they are kept, too."""
    path = folder / "real"
    evaluator = protocol.evaluator
    stamp = {"data": data.protocol(evaluator.split), "train": data.protocol("train"), "num_real": evaluator.num_real}
    if (found := _read(path, stamp)) is not None:
        return found["real"], _read_pictures(path)
    images = real()
    spectrum = [] if images.spectrum is None else images.spectrum.tolist()
    values = {"memorised": images.memorised, "spectrum": spectrum}
    _write(path, {"stamp": stamp, "real": values}, images.pictures)
    return values, images.pictures


def _digest(source: Path) -> str:
    """Return the SHA-256 of a checkpoint's content, or of the names, sizes and dates in a folder."""
    if source.is_dir():
        files = sorted(file for file in source.rglob("*") if file.is_file())
        listing = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
    return file_digest(source)


def _read(path: Path, stamp: dict[str, Any]) -> dict[str, Any] | None:
    """Return what :func:`_write` wrote, if it is there, whole, and of the same stamp."""
    file = Path(f"{path}.json")
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text())
    return found if found["stamp"] == json.loads(json.dumps(stamp)) else None


def _read_pictures(path: Path) -> Pictures:
    tensors = load_file(f"{path}.safetensors")
    return Pictures(tensors["samples"], tensors.get("nearest"))


def _write(path: Path, values: dict[str, Any], pictures: Pictures) -> None:
    """Write the JSON last: where it is, everything is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{path}.json").unlink(missing_ok=True)
    tensors = {"samples": pictures.samples} | ({} if pictures.nearest is None else {"nearest": pictures.nearest})
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, f"{path}.safetensors")
    write_json(Path(f"{path}.json"), values)
