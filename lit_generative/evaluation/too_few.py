"""Sets of images that are too small to be compared: known before anything is computed."""

from collections.abc import Iterable

from lit_generative.contracts import ImageData, Split

__all__ = ["LEAST_IMAGES", "TooFewImagesError", "too_few"]

LEAST_IMAGES = 6
"""Real images, and samples: density and coverage look at the five nearest others of each."""


class TooFewImagesError(ValueError):
    """There are fewer images than a comparison needs."""


def too_few(data: ImageData, splits: Iterable[Split]) -> str:
    """Return a sentence about the first of some splits that is too small to be compared with, or ""."""
    for split in splits:
        count = data.num_images(split)
        if count is not None and count < LEAST_IMAGES:
            return f"{data.name} has {count} {split} images, and a comparison needs at least {LEAST_IMAGES}"
    return ""
