"""Checkpoints that rebuild their model: what is in them, and reading them without running anything in them."""

import warnings
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lit_generative.description import Described, describe, find, rebuild

__all__ = ["check_weights", "pack", "read_checkpoint", "unpack"]

KEY = "lit_generative"
FORMAT = 2
STATE = ("images_seen", "weights", "precision", "noise_seed")  # attributes of a model that a checkpoint keeps

T = TypeVar("T")


def pack(checkpoint: dict[str, Any], model: Any, data: Any = None) -> None:
    """Add to a Lightning checkpoint the descriptions of the model and its data, and the model's counters."""
    checkpoint[KEY] = {
        "format": FORMAT,
        "model": describe(model),
        "data": describe(data) if isinstance(data, Described) else None,
        "state": {name: getattr(model, name) for name in STATE} | checkpoint.pop("averaged", {}),
    }


def read_checkpoint(path: str | Path, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint of this package with ``weights_only=True``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, holds code, or was not written by this package.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"checkpoint {path}: there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # of bytes that are no checkpoint, the unpickler raises whatever they make it do
        is_code = "GLOBAL" in str(error)  # pickle's name for a function or class
        is_damaged = "it is damaged, cut off or no checkpoint at all"
        reason = "it holds code or objects, not only weights and plain data" if is_code else is_damaged
        raise ValueError(f"checkpoint {path} is refused: {reason}") from None
    contents = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(contents, dict) or not _is_description(contents.get("model")) or "state_dict" not in checkpoint:
        raise ValueError(f"checkpoint {path} was not written by lit_generative: it does not say which model it holds")
    if contents.get("format") != FORMAT:
        raise ValueError(f"checkpoint {path} has format {contents.get('format')}; this version reads format {FORMAT}")
    return checkpoint


def unpack(checkpoint: dict[str, Any], expected: type[T], overrides: dict[str, Any], source: str) -> T:
    """Rebuild the model of a checkpoint, which must be of the class ``expected`` or a subclass of it.

    Raises:
        ImportError: If a class is not imported.
        ValueError: If the class is another one, or if a network must be passed in.
    """
    description = checkpoint[KEY]["model"]
    try:
        cls = find(description["class_path"])
        if not (isinstance(cls, type) and issubclass(cls, expected)):
            raise ValueError(f"it holds a {description['class_path']}, which is not a {expected.__name__}")
        arguments = {k: v for k, v in description["init_args"].items() if k not in overrides}
        rebuilt = rebuild({"class_path": description["class_path"], "init_args": arguments | overrides})
    except (ImportError, TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise (ImportError if isinstance(error, ImportError) else ValueError)(f"checkpoint {source}: {error}") from None
    return rebuilt


def check_weights(model: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Check that a checkpoint's weights have the names and shapes of the model's.

    Raises:
        ValueError: If they have not.
    """
    saved = {name: tuple(value.shape) for name, value in state_dict.items()}
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    differing = sorted(name for name in saved.keys() | own.keys() if saved.get(name) != own.get(name))
    if differing:
        name = differing[0]
        raise ValueError(
            f"the checkpoint's weights do not fit: they are those of other networks. {len(differing)} differ, for "
            f"instance {name}: {saved.get(name, 'absent')} in the file, {own.get(name, 'absent')} in the model"
        )


def _is_description(value: Any) -> bool:
    has_parts = isinstance(value, dict) and value.keys() == {"class_path", "init_args"}
    return has_parts and isinstance(value["class_path"], str) and isinstance(value["init_args"], dict)
