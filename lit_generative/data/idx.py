"""The IDX format of MNIST and its relatives (http://yann.lecun.com/exdb/mnist), plain or gzipped."""

import gzip
import math
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lit_generative.data.archives import check_growth

__all__ = ["find_idx", "idx_table", "read_idx"]

_NAME = re.compile(r"(?P<split>.+)-(?P<content>images|labels)[-.]idx[13]-ubyte(\.gz)?")
_UINT8 = 0x08


def find_idx(files: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """Find the IDX files among ``files`` by their names, for example ``train-images-idx3-ubyte.gz``.

    Returns:
        For each split (``t10k`` is called ``test``) the paths of its ``images`` and, if there, its ``labels``.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(files, reverse=True):  # where both are there, the plain file comes after the gzipped one
        if match := _NAME.fullmatch(path.name):
            split = "test" if match["split"] == "t10k" else match["split"]
            found.setdefault(split, {})[match["content"]] = path
    return {split: parts for split, parts in sorted(found.items()) if "images" in parts}


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes.

    The header is two zero bytes, the type of the values (8: unsigned byte), the number of dimensions, and each
    dimension's length as a big-endian 32-bit integer.

    Returns:
        A uint8 array: (N, H, W) for images, (N,) for labels.

    Raises:
        ValueError: If the file is truncated, is no IDX file of bytes, or unpacks to far more than itself.
    """
    try:
        content = _unpack(path) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UINT8:
        raise ValueError(f"{path} is no IDX file of unsigned bytes (it starts with {content[:4].hex()})")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise ValueError(f"{path} is damaged: it ends within its header, after {len(content)} bytes")
    shape = tuple(np.frombuffer(content[4:header], ">u4").tolist())
    if len(content) != header + math.prod(shape):
        raise ValueError(f"{path} is damaged: its header announces {shape}, but {len(content) - header:,} bytes follow")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _unpack(path: Path) -> bytes:
    content = bytearray()
    with gzip.open(path) as file:
        while chunk := file.read(2**20):
            content += chunk
            check_growth(path, len(content))
    return bytes(content)


def idx_table(parts: dict[str, Path]) -> Any:
    """Read one split, given as :func:`find_idx` finds it, into a ``datasets.Dataset`` with ``image`` and ``label``.

    The images are stored in the PGM format, which is a line of text before the raw bytes.

    Raises:
        ValueError: If a file is damaged, or if there are not as many labels as images.
    """
    import datasets

    images = read_idx(parts["images"])
    if images.ndim != 3:
        raise ValueError(f"{parts['images']} has {images.ndim} dimensions; images have three: number, height, width")
    header = b"P5 %d %d 255\n" % images.shape[:0:-1]
    columns: dict[str, list] = {"image": [{"bytes": header + image.tobytes(), "path": None} for image in images]}
    features: dict[str, Any] = {"image": datasets.Image(decode=False)}
    if "labels" in parts:
        labels = read_idx(parts["labels"])
        if labels.shape != images.shape[:1]:
            raise ValueError(f"{parts['labels']} has labels for {len(labels):,} images, but there are {len(images):,}")
        columns["label"] = labels.tolist()
        features["label"] = datasets.Value("int64")
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))
