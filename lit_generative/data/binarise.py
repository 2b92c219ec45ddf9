"""Binary images from gray ones: what bounds in nats in the literature on VAEs are of."""

import zlib
from abc import ABC, abstractmethod

import numpy as np

from lit_generative.checks import check_count
from lit_generative.description import Described

__all__ = ["Binarisation", "DynamicBinarisation", "StaticBinarisation"]

Key = tuple[int, ...]


class Binarisation(Described, ABC):
    """Makes each value of an image white (1) with its gray level in [0, 1] as probability, else black (-1)."""

    name: str

    @abstractmethod
    def settle(self, pixels: np.ndarray) -> "tuple[np.ndarray, Binarisation | None]":
        """Do once to pixels that stay in memory what can be done once.

        Args:
            pixels: uint8 (N, C, H, W).

        Returns:
            The pixels to keep, and what is left to be done to each batch of them.
        """

    @abstractmethod
    def __call__(self, pixels: np.ndarray, key: Key | None) -> np.ndarray:
        """Return values 0 or 255 for ``pixels``, uint8 (B, C, H, W).

        Args:
            pixels: Gray levels.
            key: Seeds what is drawn anew in each batch of a training; None where images must always be the same.
        """


class StaticBinarisation(Binarisation):
    """Draws each image once, in every epoch, process and run the same, as Salakhutdinov & Murray 2008 did.

    What is drawn depends on the image's pixels and the seed alone.

    Args:
        seed: Decides what is drawn.
    """

    def __init__(self, seed: int = 0) -> None:
        check_count("seed", seed, at_least=0, optional=False)
        self.seed = seed
        self.name = f"static, seed {seed}"

    def settle(self, pixels: np.ndarray) -> tuple[np.ndarray, Binarisation | None]:
        """Draw all; nothing is left to be done."""
        return self(pixels, None), None

    def __call__(self, pixels: np.ndarray, key: Key | None) -> np.ndarray:
        """Return values 0 or 255 for ``pixels``, uint8 (B, C, H, W); ``key`` has no say."""
        drawn = np.empty_like(pixels)
        for image, out in zip(pixels, drawn, strict=True):
            out[:] = _draw(image, np.random.default_rng((self.seed, zlib.crc32(image.tobytes()))))
        return drawn


class DynamicBinarisation(Binarisation):
    """Draws training images anew each time they are seen (Burda et al. 2016, sec. 5); a resumed run draws the same.

    Images for evaluation are those of ``StaticBinarisation(0)``, so that two evaluations agree.
    """

    name = "dynamic in training; for evaluation static, seed 0"

    def settle(self, pixels: np.ndarray) -> tuple[np.ndarray, Binarisation | None]:
        """Keep the gray levels; everything is left to be done."""
        return pixels, self

    def __call__(self, pixels: np.ndarray, key: Key | None) -> np.ndarray:
        """Return values 0 or 255 for ``pixels``, uint8 (B, C, H, W), seeded by ``key`` if there is one."""
        return StaticBinarisation()(pixels, None) if key is None else _draw(pixels, np.random.default_rng(key))


def _draw(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return 255 with probability pixels / 255, else 0."""
    return np.where(rng.integers(0, 255, pixels.shape, np.uint8) < pixels, 255, 0).astype(np.uint8)
