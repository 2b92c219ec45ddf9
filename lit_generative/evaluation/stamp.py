"""What accompanies the numbers of an evaluation: how they came about, and what a reader must know."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lit_generative.contracts import ImageData
from lit_generative.core import GenerativeModule
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.reference import Reference

__all__ = ["make_stamp", "make_warnings"]

_PACKAGES = ("lit-generative", "torch", "torchmetrics", "torch-fidelity")  # whose versions a number may depend on


def make_stamp(
    settings: dict[str, Any], model: GenerativeModule, data: ImageData, extractor: Extractor, real: Reference
) -> dict[str, Any]:
    """Return the protocol of an evaluation, as plain data.

    Args:
        settings: Of the evaluator: ``split``, ``num_fake``, ``batch_size`` and ``seed``.
        model: What was evaluated.
        data: Where the real images come from.
        extractor: What the images were compared by.
        real: What the samples were compared with.
    """
    return {
        **settings,
        "extractor": extractor.name,
        "extractor_sha256": extractor.digest,
        "extractor_resizing": extractor.resizing,
        "num_features": extractor.num_features,
        "num_real": real.num_images,
        "data": data.protocol(settings["split"]),
        "weights": model.weights,
        **model.sampling,
        "labels": None if model.num_classes is None else "as real" if real.label_counts is not None else "balanced",
        "kernel_distance": "unbiased over all pairs, (x.y / D + 1)^3",
        "neighbours": {"precision_recall": 3, "density_coverage": 5},
        "floor": {extractor.metric_names.get(name, name): value for name, value in real.floor.items()},
        "num_floor": real.num_floor,
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def make_warnings(n: int, broken: int, extractor: Extractor, real: Reference) -> list[str]:
    """Return what a reader of the numbers must know, in sentences; none for a protocol as in the papers.

    Args:
        n: How many samples there were.
        broken: How many of them had values that are not finite.
        extractor: What the images were compared by.
        real: What the samples were compared with.
    """
    features = extractor.num_features or 0
    fewest = min(n, real.num_images)
    is_fid = "fid" in extractor.metric_names.values()
    cases = {
        f"{broken} of {n} samples have values that are not finite; they count as gray or saturated": broken,
        f"{fewest} images for {features} features: their covariance is singular": fewest <= features,
        f"FID of {fewest} images: with fewer than 10,000 it is too high": is_fid and fewest < 10_000,
        f"{n} samples against {real.num_images} real images: the distance is too high": n < real.num_images,
        f"the floor is of {real.num_floor} training images, not {n}: there are no more": real.num_floor < n,
    }
    return [sentence for sentence, applies in cases.items() if applies]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
