"""Which feature extractor to use, and where its weights are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lit_generative.contracts import HasModes, ImageData
from lit_generative.description import find, rebuild
from lit_generative.evaluation.extractors import ClassifierExtractor, Extractor
from lit_generative.evaluation.points import PointsExtractor
from lit_generative.evaluation.published_features import (
    CLIPExtractor,
    DINOv2Extractor,
    ImageNetExtractor,
    InceptionExtractor,
    has_imagenet,
)
from lit_generative.evaluation.random_features import RandomExtractor
from lit_generative.evaluation.weights_files import CLIP, DINOV2, INCEPTION, PublishedWeights
from lit_generative.evaluation.weights_files import download as fetch
from lit_generative.files import file_digest
from lit_generative.nn.classifier import Classifier

__all__ = ["default_extractor", "load_extractor"]

FASHION_WEIGHTS = Path(__file__).parent / "weights" / "fashion.safetensors"
FASHION_SHA256 = "fdafb5908379557a30433abbc32147314acb76b41ce74c3cdfc03bf9c498ead5"
_CLIP, _DINOV2 = "vit-l-14-336px", "vit-l-14"  # the networks of CMMD, and of Stein et al. 2023


def load_extractor(spec: str | Path | nn.Module, download: bool = False) -> Extractor:
    """Load a feature extractor.

    Args:
        spec: ``"fashion"`` (embedded), ``"random"`` (a fixed random network, for images of any kind), ``"imagenet"``
            (from a package, for any images), one of ``"inception"``, ``"clip"``, ``"dinov2"`` (weights in torch hub's
            cache), ``"clip-vit-b-32"`` or ``"dinov2-vit-s-14"`` (the same, of another size), these with a file,
            ``"inception:FILE.pth"``, a ``.safetensors`` file written by ``lit-generative extractor``, or any module
            that maps images in [-1, 1] to features (B, D).
        download: Whether weights that are not in the cache are fetched, and checked by their hash; else nothing is.

    Raises:
        FileNotFoundError: If a file of weights is missing; the message says where it was looked for.
        ModuleNotFoundError: If the extra that an extractor needs is not installed.
        OSError: If weights cannot be fetched.
        ValueError: If there is no such extractor, or its file is damaged.
    """
    if isinstance(spec, Extractor):
        return spec
    if isinstance(spec, nn.Module):
        return Extractor(spec)
    name, _, path = str(spec).partition(":")
    family, _, size = name.partition("-")
    if str(spec) in _WITH_US:
        return _WITH_US[str(spec)]()
    if name == "inception":
        return InceptionExtractor(_weights(INCEPTION, name, path, download))
    if family == "clip" and (size or _CLIP) in CLIP:
        return CLIPExtractor(_weights(CLIP[size or _CLIP], name, path, download))
    if family == "dinov2" and (size or _DINOV2) in DINOV2:
        return DINOv2Extractor(_weights(DINOV2[size or _DINOV2], name, path, download), size or _DINOV2)
    if Path(spec).suffix == ".safetensors":
        return _load_classifier(Path(spec), Path(spec).stem)
    sized = [f"clip-{size}" for size in CLIP] + [f"dinov2-{size}" for size in DINOV2]
    raise ValueError(
        f"extractor is {str(spec)!r}; it must be fashion, random, imagenet, inception, clip, dinov2 "
        f"({', '.join(sized)}), one with a file of weights as in inception:FILE.pth, a .safetensors file written by "
        "`lit-generative extractor`, or a module"
    )


def _weights(weights: PublishedWeights, name: str, path: str, download: bool) -> Path:
    return fetch(name, weights) if download and not path else weights.find(name, path)


def default_extractor(data: ImageData) -> str | Extractor:
    """The extractor to use for ``data`` unless told otherwise.

    That is the plane itself for points of known modes, ``fashion`` for Fashion-MNIST, else ``inception`` where its
    weights are in torch hub's cache, ``imagenet`` where that extra is installed, and ``random`` where it is not, so
    that any images get a number.
    """
    if isinstance(data, HasModes):
        return PointsExtractor(torch.as_tensor(data.centres()), data.scale, data.class_names or ())
    name = "".join(filter(str.isalnum, data.name.lower()))
    if "fashionmnist" in name and data.num_classes == 10:
        return "fashion"
    if any(path.is_file() for path in INCEPTION.places):
        return "inception"
    return "imagenet" if has_imagenet() else "random"


def _load_classifier(path: Path, name: str, digest: str | None = None) -> ClassifierExtractor:
    if not path.is_file():
        raise FileNotFoundError(f"extractor {path} does not exist; `lit-generative extractor` trains one")
    found = file_digest(path)
    if digest not in (None, found):
        raise ValueError(f"{path} is damaged: its SHA-256 is {found} instead of {digest}; install lit-generative anew")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            network = rebuild(_classifier_in(metadata["network"]))
            network.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
            return ClassifierExtractor(network, name, found, json.loads(metadata["class_names"]))
    except OSError as error:
        raise OSError(f"extractor {path} cannot be read: {error.strerror or error}") from None
    except (SafetensorError, ImportError, KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} was not written by `lit-generative extractor`, or is damaged: {error}") from error


def _classifier_in(text: str) -> dict[str, Any]:
    """Return the description in a file, if it is that of a classifier."""
    description = json.loads(text)
    if find(description["class_path"]) is not Classifier:
        raise TypeError(f"it names {description['class_path']} for its network")
    return description


def _fashion() -> ClassifierExtractor:
    return _load_classifier(FASHION_WEIGHTS, "fashion", FASHION_SHA256)


_WITH_US: dict[str, Callable[[], Extractor]] = {
    "fashion": _fashion,
    "random": RandomExtractor,
    "imagenet": ImageNetExtractor,
}
