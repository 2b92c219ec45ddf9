"""Checkpoints that rebuild their model: what is in them, and reading them without running anything in them."""

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from lit_generative.description import Described, check, describe, find, rebuild
from lit_generative.files import replacing

__all__ = [
    "WholeCheckpoints",
    "check_weights",
    "data_of",
    "model_of",
    "pack",
    "read_adapters",
    "read_checkpoint",
    "read_weights",
    "unpack",
]

KEY = "lit_generative"
FORMAT = 2
ADAPTERS = ".adapters.pt"
# attributes of a model that a checkpoint keeps
STATE = ("images_seen", "weights", "precision", "noise_seed", "class_names", "origin")

T = TypeVar("T")


def pack(checkpoint: dict[str, Any], model: Any, data: Any = None, adapted: Sequence[str] = ()) -> None:
    """Add to a Lightning checkpoint the descriptions of the model and its data, and the model's counters.

    Args:
        checkpoint: What it is added to.
        model: A GenerativeModule.
        data: Its data module.
        adapted: The names of the weights that belong into a file of adapters.
    """
    checkpoint[KEY] = {
        "format": FORMAT,
        "model": describe(model),
        "data": describe(data) if isinstance(data, Described) else None,
        "state": {name: getattr(model, name) for name in STATE} | checkpoint.pop("averaged", {}),
    } | ({"adapted": list(adapted)} if adapted else {})


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that the one before is there until the new one is whole.

    Lightning writes into the temporary folder and moves, which on another file system is a copy: a kill or a full disk
    in the middle destroys both.

    Beside that of a network with adapters there is a small file of what was trained, with the digest of its base.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint``; addresses of other places than this machine's disks are left to Lightning.

        Raises:
            OSError: If it cannot be written; what was there before still is.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            with replacing(Path(path)) as scratch:
                torch.save(checkpoint, scratch)
            if adapted := checkpoint.get(KEY, {}).get("adapted"):
                with replacing(_beside(path)) as scratch:
                    torch.save(_adapters_of(checkpoint, adapted), scratch)
        except (OSError, RuntimeError) as error:  # torch's zip writer raises a RuntimeError where the disk is full
            reason = error.strerror if isinstance(error, OSError) else "the disk is full, or it went away"
            kept = "; the one before is still there" if Path(path).is_file() else ""
            raise OSError(f"checkpoint {path} cannot be written: {reason}{kept}") from error

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, and the adapters beside it."""
        super().remove_checkpoint(path)
        _beside(path).unlink(missing_ok=True)


def _beside(checkpoint: str | Path) -> Path:
    return Path(checkpoint).with_suffix(ADAPTERS)


def _adapters_of(checkpoint: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the named part of a checkpoint's weights, with what it says of the model and of its base."""
    contents = {name: checkpoint[KEY][name] for name in ("format", "model", "data", "state")}
    weights = {name: checkpoint["state_dict"][name].clone() for name in names}  # else all of a storage is written
    base = {"base_sha256": contents["state"]["origin"]["weights_sha256"]}
    return {KEY: contents | base, "state_dict": weights}


def read_checkpoint(path: str | Path, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint of this package with ``weights_only=True``.

    Args:
        path: The file.
        map_location: As in ``torch.load``; None, on a machine without a GPU: the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it may not be read.
        ValueError: If the file is damaged, holds code, or was not written by this package.
    """
    checkpoint = read_weights(path, "checkpoint", map_location)
    _check_contents(checkpoint, path)
    if "base_sha256" in checkpoint[KEY]:
        raise ValueError(
            f"checkpoint {path} holds adapters alone: put them on their base by `lit-generative export BASE.ckpt "
            f"--adapters {path} --output FILE.ckpt`"
        )
    return checkpoint


def read_adapters(path: str | Path) -> dict[str, Any]:
    """Read a file of adapters as :class:`WholeCheckpoints` writes it, on the CPU; errors as of a checkpoint's."""
    adapters = read_weights(path, "adapters", "cpu")
    _check_contents(adapters, path)
    if not isinstance(adapters[KEY].get("base_sha256"), str):
        raise ValueError(f"adapters {path} is a whole checkpoint; give the file beside it, *{ADAPTERS}")
    return adapters


def _check_contents(checkpoint: Any, path: str | Path) -> None:
    """Refuse what this package has not written, or another version of it."""
    contents = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not isinstance(contents, dict) or not _is_description(contents.get("model")) or "state_dict" not in checkpoint:
        raise ValueError(f"checkpoint {path} was not written by lit_generative: it does not say which model it holds")
    if contents.get("format") != FORMAT:
        raise ValueError(f"checkpoint {path} has format {contents.get('format')}; this version reads format {FORMAT}")
    if not _is_state(contents.get("state")):
        raise ValueError(f"checkpoint {path} is damaged: its counters are not numbers")


def read_weights(path: str | Path, kind: str, map_location: Any = None) -> Any:
    """Read a file of weights and plain data that torch has written; no code in it is run.

    Args:
        path: The file.
        kind: What errors call it, for instance "checkpoint".
        map_location: As in ``torch.load``; None, on a machine without a GPU: the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it may not be read.
        ValueError: If it is damaged or holds code.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{kind} {path}: there is no such file")
    if map_location is None and not torch.cuda.is_available():
        map_location = "cpu"
    try:
        if zipfile.is_zipfile(path):
            _check_sums(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location=map_location, weights_only=True)
    except OSError as error:
        raise OSError(f"{kind} {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # of bytes that are no checkpoint, the unpickler raises whatever they make it do
        is_code = "GLOBAL" in str(error)  # pickle's name for a function or class
        is_damaged = "it is damaged, cut off or not one at all"
        reason = "it holds code or objects, not only weights and plain data" if is_code else is_damaged
        raise ValueError(f"{kind} {path} is refused: {reason}") from None


def _check_sums(path: str | Path) -> None:
    """Compare all that is in a checkpoint with the checksums that it was written with: torch itself does not.

    What is compressed, or stands in the file more than once, is refused: torch does neither, and a small file could
    fill the memory.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        is_larger = sum(member.file_size for member in members) > Path(path).stat().st_size
        if is_larger or any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("compressed")
        if archive.testzip() is not None:
            raise ValueError("damaged")


def data_of(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """Return the description of the data that a checkpoint was trained on, if all that it names may be built.

    Raises:
        ImportError: If a class is not imported.
        ValueError: If something is named that a file may not have built.
    """
    return _for_parser(checkpoint[KEY].get("data"), "data")


def model_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a checkpoint's model as a configuration, if all that it names may be built.

    Raises:
        ImportError: If a class is not imported.
        ValueError: If something is named that a file may not have built, or was put together by hand.
    """
    return _for_parser(_as_configuration(checkpoint[KEY]["model"]), "model")


def _for_parser(description: Any, what: str) -> Any:
    """Return a description that a parser of options is to read, once it names nothing that the parser would import."""
    try:
        check(description)
        for cls, name, value in _arguments(description):
            for text in (v for v in _values(value) if isinstance(v, str)):
                if not _takes_text(cls, name, text):
                    raise TypeError(f"{name} is {value!r}, which a parser would import")
    except (TypeError, AttributeError) as error:
        raise ValueError(f"the {what} that the checkpoint names are refused: {error}") from None
    return description


def _as_configuration(description: Any, name: str = "") -> Any:
    """Return a description in the form of a configuration, in which optimizers have ``init_args`` as all else."""
    if isinstance(description, list | tuple):
        return [_as_configuration(value, name) for value in description]
    if not isinstance(description, dict):
        return description
    if "opaque" in description:
        raise ValueError(f"{name} is a {description['opaque']}, which no file describes: give --model or --config")
    parts = {key: _as_configuration(value, key) for key, value in description.items()}
    if parts.keys() == {"partial", "keywords"}:
        return {"class_path": parts["partial"], "init_args": parts["keywords"]}
    return {"class_path": parts["import_path"], "init_args": {}} if parts.keys() == {"import_path"} else parts


def _arguments(description: Any) -> Iterator[tuple[type, str, Any]]:
    """Yield each class in a description, and its arguments' names and values."""
    if isinstance(description, list | tuple):
        for value in description:
            yield from _arguments(value)
    elif isinstance(description, dict) and "class_path" in description:
        for name, value in description["init_args"].items():
            yield find(description["class_path"]), name, value
            yield from _arguments(value)


def _values(value: Any) -> Iterator[Any]:
    """Yield a value, or those in lists and tables of them; what a description names in turn is looked at by itself."""
    if isinstance(value, dict) and "class_path" not in value:
        yield from _values([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _values(item)
    else:
        yield value


def _takes_text(cls: type, name: str, text: str) -> bool:
    """Whether an argument is meant to be text; where a class is, a parser takes text for the class's name."""
    try:
        hints = [get_type_hints(cls.__init__).get(name, Any)]  # type: ignore[misc]
    except NameError:  # of types that only type checkers import, a parser knows nothing either
        hints = [Any]
    for hint in hints:
        hints += get_args(hint) if get_origin(hint) is not Literal else []
    if Any in hints:  # which a parser reads as YAML
        return "class_path" not in text
    if any(isinstance(hint, type) and issubclass(hint, Described | nn.Module) for hint in hints):
        return False
    return any(hint in (str, Path) or get_origin(hint) is Literal for hint in hints)


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
    except (ImportError, TypeError, ValueError, KeyError, AttributeError, RuntimeError, MemoryError) as error:
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


def _is_state(state: Any) -> bool:
    kinds: dict[str, Any] = {"images_seen": int, "weights": str, "precision": str, "noise_seed": int | None}
    kinds |= {"class_names": list | None, "origin": dict | None}
    has_kinds = isinstance(state, dict) and all(isinstance(state.get(name), kind) for name, kind in kinds.items())
    has_kinds = has_kinds and all(isinstance(v, str | int) for v in (state.get("origin") or {}).values())
    return has_kinds and state["images_seen"] >= 0 and all(isinstance(name, str) for name in state["class_names"] or ())
