"""Quality without copying: what to choose a state of a training by, where there are few images to learn from.

A model that draws its training images is at no distance from them, so that a distance alone chooses the state that has
learned them by heart.
"""

from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_generative.contracts import ImageData, Split
from lit_generative.evaluation.memorisation import Neighbours, copied, nearest_neighbours
from lit_generative.processes import gather

__all__ = ["MOST_COPIES", "copied_share", "copied_share_of_real", "quality_without_copies"]

MOST_COPIES = 0.1
"""The share of copies, beyond those among real images, from which on there is no quality."""

_SIDE = 32  # pixels at which images are compared: copies are found as well as at any size, and in seconds
_MOST_REAL = 1000


def quality_without_copies(distance: float, memorised: float, floor: float = 0.0) -> float:
    """Return a distance that copies make larger: d / (1 - m / 0.1), and infinite from m = 0.1 on.

    m is the share of copies among the samples beyond that among real images that were not trained on, where similar
    pictures are taken for copies by chance: (memorised - floor) / (1 - floor), or 0. At 5 % copies a distance counts
    twice.

    Args:
        distance: The Fréchet distance, which is never negative.
        memorised: The share of samples that are copies, in [0, 1].
        floor: The same of real images that were not trained on.
    """
    excess = 0.0 if floor >= 1 else max(0.0, (memorised - floor) / (1 - floor))
    return distance / (1 - excess / MOST_COPIES) if excess < MOST_COPIES else inf


@torch.no_grad()
def copied_share(images: Tensor, data: ImageData) -> float:
    """Return the share of images that copy a training image, as it is or mirrored, at no more than 32 pixels a side.

    Args:
        images: (N, C, H, W) in [-1, 1], those of this process; 0 of no images at all.
        data: Has the training images. Every process has to ask.
    """
    images = gather(_shrunk(images))
    if not len(images):
        return 0.0
    both = torch.cat([images, images.flip(-1)])
    found = nearest_neighbours(both, (_shrunk(batch["image"]) for batch in data.loader("train", batch_size=1000)))
    everyones = gather(found.distances.to(images.device)).unflatten(0, (-1, len(both)))  # each looked at its own share
    distances = everyones.movedim(0, 1).flatten(1).topk(2, largest=False).values
    parts = distances.split(len(images)), both.split(len(images))
    return float(copied(*map(Neighbours, *parts)).double().mean())


def copied_share_of_real(data: ImageData, split: Split) -> float:
    """Return the share of real images of another split that a training image is as near to as to a copy."""
    batches = data.loader(split, batch_size=250, limit=_MOST_REAL)
    return copied_share(torch.cat([batch["image"] for batch in batches]), data)


def _shrunk(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) averaged to at most 32 pixels a side."""
    height, width = images.shape[2:]
    if max(height, width) <= _SIDE:
        return images
    return F.adaptive_avg_pool2d(images, (min(height, _SIDE), min(width, _SIDE)))
