"""Digests of what decides a number: what an extractor computes, a model's weights, the images, and this room's code."""

import functools
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["MODULUS", "code_digest", "content_digest", "content_sum", "probe_images", "tensor_digest", "weights_digest"]

_PROBES = 4
MODULUS = 2**48  # sums of thousands of batches still fit into int64


def probe_images(shape: tuple[int, int, int]) -> Tensor:
    """Return four fixed images of a shape (C, H, W), of 8-bit levels in [-1, 1]: two of noise, two of coarse noise.

    ``RandomState`` draws the same numbers on every platform and in every version of NumPy.
    """
    channels, height, width = shape
    levels = np.random.RandomState(0).randint(256, size=(_PROBES, channels, height, width))
    rows, columns = (np.arange(n) // 4 * 4 for n in (height, width))
    half = _PROBES // 2
    levels[half:] = levels[half:, :, rows][..., columns]  # blocks of 4 x 4 pixels, which blur changes little
    return torch.from_numpy(levels).float() / 127.5 - 1


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256, hexadecimal, of a tensor's type, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_digest(module: nn.Module | Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of a module's parameters and buffers, or those of its state, with their names."""
    digest = hashlib.sha256()
    for name, value in (module.state_dict() if isinstance(module, nn.Module) else module).items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {tensor_digest(value)}".encode())
    return digest.hexdigest()


def content_sum(images: Tensor) -> int:
    """Return a number that depends on each image (B, C, H, W) but not on their order; those of parts of a set add up.

    It is the sum of the first 48 bits of each image's SHA-256, modulo 2^48.
    """
    rows = images.detach().cpu().float().flatten(1).numpy()
    return sum(int.from_bytes(hashlib.sha256(row.data).digest()[:6], "big") for row in rows) % MODULUS


def content_digest(parts: list[int], num_images: int, shape: tuple[int, ...]) -> str:
    """Return 16 hexadecimal digits that identify a set of images by its content, wherever it is kept.

    Args:
        parts: The :func:`content_sum` of each part of it.
        num_images: How many there are.
        shape: Of an image.
    """
    return hashlib.sha256(repr((sum(parts) % MODULUS, num_images, tuple(shape))).encode()).hexdigest()[:16]


@functools.cache
def code_digest() -> str:
    """Return 16 hexadecimal digits of the source of ``lit_generative.evaluation``: the version of the metrics."""
    sources = [file for file in files(__package__).iterdir() if file.name.endswith(".py")]
    content = [(file.name, file.read_bytes()) for file in sorted(sources, key=lambda file: file.name)]
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
