"""What is computed once about the real images: tensors on disk."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lit_generative.processes import broadcast, rank_and_world

__all__ = ["TensorCache"]


class TensorCache:
    """A folder of safetensors files, each named by the hash of the key that describes its content.

    Args:
        folder: Where; by default ``$LIT_GENERATIVE_CACHE``, else ``lit_generative`` in ``$XDG_CACHE_HOME`` or
            ``~/.cache``.
    """

    def __init__(self, folder: str | None = None) -> None:
        user_cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        default = os.environ.get("LIT_GENERATIVE_CACHE") or f"{user_cache}/lit_generative"
        self.folder = Path(folder or default).expanduser()

    def get(self, key: dict[str, Any], compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Read the tensors of ``key``, or compute and write them.

        Only rank 0 touches the disk, so processes need not share one. What was read is known to rank 0 alone; the
        others get an empty dict. ``compute`` is called by every rank or by none, and may communicate.

        Args:
            key: Plain data that determines the tensors.
            compute: Called if there is no such file, or if it is damaged; its result counts on rank 0.
        """
        text = json.dumps(key, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"
        is_first = rank_and_world()[0] == 0
        tensors = _read(path, text) if is_first else {}
        if not broadcast(bool(tensors)):
            tensors = {name: value.cpu().contiguous() for name, value in compute().items()}
            if is_first:
                _write(path, text, tensors)
        return tensors if is_first else {}


def _read(path: Path, text: str) -> dict[str, Tensor]:
    """The tensors in a file, or none if it is missing, damaged, or of another key."""
    with contextlib.suppress(OSError, SafetensorError), safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors if (file.metadata() or {}).get("key") == f"{_digest(tensors)} {text}" else {}
    return {}


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of names and values: safetensors has no checksums, and a flipped bit would change every later number."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, text: str, tensors: dict[str, Tensor]) -> None:
    """Write a file at once, so that other runs find all of it or nothing. A disk that refuses costs time, no result."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            save_file(tensors, f"{folder}/new", {"key": f"{_digest(tensors)} {text}"})
            os.replace(f"{folder}/new", path)
    except (OSError, SafetensorError) as error:
        rank_zero_warn(f"real features are not cached, so the next run computes them again: {error}")
