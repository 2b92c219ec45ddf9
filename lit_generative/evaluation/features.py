"""Which feature extractor to use, and where its weights are."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from lit_generative.contracts import HasModes, ImageData
from lit_generative.description import find, rebuild
from lit_generative.evaluation.extractors import ClassifierExtractor, Extractor, InceptionExtractor, file_digest
from lit_generative.evaluation.points import PointsExtractor
from lit_generative.evaluation.random_features import RandomExtractor
from lit_generative.nn.classifier import Classifier

__all__ = ["default_extractor", "load_extractor"]

FASHION_WEIGHTS = Path(__file__).parent / "weights" / "fashion.safetensors"
FASHION_SHA256 = "fdafb5908379557a30433abbc32147314acb76b41ce74c3cdfc03bf9c498ead5"
INCEPTION_FILES = (  # torch-fidelity's and pytorch-fid's names for the same file
    "weights-inception-2015-12-05-6726825d.pth",
    "pt_inception-2015-12-05-6726825d.pth",
)


def load_extractor(spec: str | Path | nn.Module) -> Extractor:
    """Load a feature extractor. Nothing is ever downloaded.

    Args:
        spec: ``"fashion"`` (embedded), ``"inception"`` (weights from torch hub's cache), ``"inception:FILE.pth"``,
            ``"random"`` (a fixed random network, for images of any kind), a ``.safetensors`` file written by
            ``lit-generative extractor``, or any module that maps images in [-1, 1] to features (B, D).

    Raises:
        FileNotFoundError: If a file of weights is missing; the message says where it was looked for.
        ValueError: If there is no such extractor, or its file is damaged.
    """
    if isinstance(spec, Extractor):
        return spec
    if isinstance(spec, nn.Module):
        return Extractor(spec)
    name, _, path = str(spec).partition(":")
    if name == "inception":
        return InceptionExtractor(_inception_file(path))
    if str(spec) == "random":
        return RandomExtractor()
    if name == "fashion":
        return _load_classifier(FASHION_WEIGHTS, name, FASHION_SHA256)
    if Path(spec).suffix == ".safetensors":
        return _load_classifier(Path(spec), Path(spec).stem)
    raise ValueError(
        f"extractor is {str(spec)!r}; it must be fashion, inception, inception:FILE.pth, random, a .safetensors file "
        "written by `lit-generative extractor`, or a module"
    )


def default_extractor(data: ImageData) -> str | Extractor:
    """The extractor to use for ``data`` unless told otherwise.

    That is the plane itself for points of known modes, ``fashion`` for Fashion-MNIST, else ``inception`` where its
    weights are in torch hub's cache, and ``random`` where they are not, so that any images get a number.
    """
    if isinstance(data, HasModes):
        return PointsExtractor(torch.as_tensor(data.centres()), data.scale, data.class_names or ())
    name = "".join(filter(str.isalnum, data.name.lower()))
    if "fashionmnist" in name and data.num_classes == 10:
        return "fashion"
    return "inception" if any(path.is_file() for path in _inception_files()) else "random"


def _inception_files() -> list[Path]:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return [folder / name for name in INCEPTION_FILES]


def _inception_file(path: str) -> Path:
    candidates = [Path(path)] if path else _inception_files()
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"extractor inception needs its weights, and {candidates[0]} does not exist. Put torch-fidelity's file "
        f"{INCEPTION_FILES[0]} there, or name its place with extractor=inception:FILE.pth, or take the "
        "extractor random, or train one of your own with `lit-generative extractor`; nothing is downloaded"
    )


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
