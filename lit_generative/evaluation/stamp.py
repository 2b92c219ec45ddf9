"""What accompanies the numbers of an evaluation: how they came about, and what a reader must know."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lit_generative.contracts import ImageData
from lit_generative.core import GenerativeModule
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.identity import code_digest, weights_digest
from lit_generative.evaluation.random_features import RandomExtractor
from lit_generative.evaluation.reference import Reference

__all__ = ["is_of_points", "make_stamp", "make_warnings"]

_PACKAGES = ("lit-generative", "torch", "torchmetrics", "torch-fidelity")  # whose versions a number may depend on

_MANY_TIED = 0.01


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
        "extractor_probe": extractor.fingerprint(data.image_shape),
        "extractor_resizing": extractor.resizing,
        "num_features": extractor.num_features,
        "num_real": real.num_images,
        "data": data.protocol(settings["split"]),
        "data_content": real.content,
        "weights": model.weights,
        "weights_sha256": weights_digest(model),
        **({} if model.origin is None else {"origin": model.origin}),
        **model.sampling,
        "labels": None if model.num_classes is None else "as real" if real.label_counts is not None else "balanced",
        "kernel_distance": "unbiased over all pairs, (x.y / D + 1)^3",
        "neighbours": {"precision_recall": 3, "density_coverage": 5},
        "levels": None if is_of_points(data) else 256,
        "floor": {extractor.metric_names.get(name, name): value for name, value in real.floor.items()},
        "floor_spread": {extractor.metric_names.get(name, name): value for name, value in real.floor_spread.items()},
        "num_floor": None if real.num_floor is None else list(real.num_floor),
        "metrics_code": code_digest(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def make_warnings(
    n: int, broken: int, extractor: Extractor, real: Reference, unmeasured: int, classes: str = ""
) -> list[str]:
    """Return what a reader of the numbers must know, in sentences; none for a protocol as in the papers.

    Args:
        n: How many samples there were.
        broken: How many of them had values that are not finite.
        extractor: What the images were compared by.
        real: What the samples were compared with.
        unmeasured: How many samples have features that are not finite.
        classes: Why there is no class accuracy, where one would be expected.
    """
    features = extractor.num_features or 0
    fewest = min(n, real.num_images)
    is_fid = "fid" in extractor.metric_names.values()
    cases = {
        f"{broken} of {n} samples have values that are not finite; they count as gray or saturated": broken,
        f"the extractor gives {unmeasured} of {n} samples features that are not finite: no distance is defined": (
            unmeasured
        ),
        f"{fewest} images for {features} features: their covariance is singular": fewest <= features,
        f"FID of {fewest} images: with fewer than 10,000 it is too high": is_fid and fewest < 10_000,
        f"{n} samples against {real.num_images} real images: the distance is too high": n < real.num_images,
        f"there is no floor: {real.num_images} real images are too few to split": real.num_floor is None,
        f"{real.tied:.0%} of the real images occur more than 5 times: density and coverage count none near them": (
            real.tied >= _MANY_TIED
        ),
        "the features are those of a fixed random network: their distances compare with each other alone": (
            isinstance(extractor, RandomExtractor)
        ),
        classes: classes,
    }
    return [sentence for sentence, applies in cases.items() if applies]


def is_of_points(data: ImageData) -> bool:
    """Whether the data are points of the plane, (2, 1, 1), which have no levels."""
    return tuple(data.image_shape) == (2, 1, 1)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
