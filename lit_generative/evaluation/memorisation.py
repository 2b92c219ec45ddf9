"""Whether samples are copies of training images, judged in pixels and in features."""

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor

from lit_generative.evaluation.distances import neighbour_distance

__all__ = ["Neighbours", "copied", "copies_in_features", "nearest_neighbours"]

_BLOCK = 1024  # rows of a distance matrix held at a time
_RATIO = 1 / 3
_HALF_LEVEL = 1 / 255  # of 8-bit images in [-1, 1], whose levels are 2/255 apart


@dataclasses.dataclass
class Neighbours:
    """The training images nearest to N samples.

    Attributes:
        distances: Euclidean distances to the nearest and the second nearest, (N, 2), float64; the second is infinite
            if there is one training image alone.
        images: The nearest, (N, C, H, W).
    """

    distances: Tensor
    images: Tensor

    @property
    def is_copy(self) -> Tensor:
        """Which samples are copies of a training image, (N,), boolean.

        Those are, after Yoon et al. 2023 ("Diffusion Probabilistic Models Generalize when They Fail to Memorize"), that
        are more than three times as near to one training image as to any other. Near images of a set with d intrinsic
        dimensions have a ratio of distances below 1/3 with the probability 3^-d by chance, about one in 60,000 for
        d = 10. The rule is blind to training images that occur twice, whose copies have the ratio 0/0 or close to it.
        So a sample counts, too, that differs from a training image by no more than the rounding to 8 bits, half a level
        (1/255) in root mean square.
        """
        nearest, second = self.distances.unbind(dim=1)
        rounding = _HALF_LEVEL * self.images[0].numel() ** 0.5
        return (nearest < _RATIO * second) & second.isfinite() | (nearest <= rounding)

    @property
    def rate(self) -> float:
        """The share of samples that are copies, in [0, 1]."""
        return float(self.is_copy.double().mean())

    def relative_distance(self, held_out: "Neighbours") -> float:
        """Return the median distance over that of real images that were not trained on: below 1 is nearer than those.

        Blurred samples are near, too: half of all images' details are then no distance.
        """
        return float(self.distances[:, 0].median() / held_out.distances[:, 0].median())


def nearest_neighbours(images: Tensor, training: Iterable[Tensor]) -> Neighbours:
    """Find the nearest training images in Euclidean distance of the pixels.

    Of memory it needs that of three times ``images``, of one batch of training images, and of a block of distances.
    The squared distances come from products, |x|^2 - 2 x.y + |y|^2, in float64: in float32 a copy of an image would be
    at a distance of some gray levels.

    Args:
        images: (N, C, H, W).
        training: Batches (B, C, H, W) of training images; of equally near ones the first counts.

    Raises:
        ValueError: If there are no images, no training images, or the shapes differ.
    """
    if len(images) == 0:
        raise ValueError("images has no image in it; give at least one whose neighbours are to be found")
    best = torch.full((len(images), 2), torch.inf, dtype=torch.double, device=images.device)
    found = torch.empty_like(images)
    for batch in training:
        if batch.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"images has shape {tuple(images.shape)}, training images {tuple(batch.shape[1:])}; make them equal"
            )
        _improve(best, found, images, batch.to(images.device))
    if best[0, 0].isinf():
        raise ValueError("training has no images; give at least one batch")
    return Neighbours(best, found)


def _improve(best: Tensor, found: Tensor, images: Tensor, batch: Tensor) -> None:
    """Let a batch of training images (B, C, H, W) compete, in place."""
    y = batch.flatten(1).double()
    for start in range(0, len(images), _BLOCK):
        rows = slice(start, start + _BLOCK)
        x = images[rows].flatten(1).double()
        distances, index = torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist").topk(min(2, len(y)), largest=False)
        is_nearer = distances[:, 0] < best[rows, 0]
        found[rows][is_nearer] = batch[index[is_nearer, 0]].to(found.dtype)
        best[rows] = torch.cat([best[rows], distances], dim=1).topk(2, largest=False).values


def copied(*neighbours: Neighbours) -> Tensor:
    """Return which samples are copies by any of several searches, (N,): of the images as they are, and mirrored.

    The searches are apart, for a symmetric image and its mirror image are near to each other, and a copy would not be
    three times as near to the one as to the other.
    """
    return torch.stack([found.is_copy for found in neighbours]).any(dim=0)


def copies_in_features(fake: Tensor, training: Tensor) -> dict[str, Tensor]:
    r"""Say which samples are nearer to a training image than chance explains, in the features of some extractor.

    - ``memorised_features``: the rule of :class:`Neighbours`, more than three times as near to one training image as to
      any other, or at no distance.
    - ``authenticity``: Alaa et al. 2022 (arXiv:2102.08921), Equation 9. A sample is authentic unless it is nearer to
      the nearest training image than that image is to its own nearest other one. Of real images that were not trained
      on about half are authentic, of copies none.

    Args:
        fake: Features of samples, (M, D).
        training: Features of training images, (N, D), at least two.

    Returns:
        Zeros and ones, (M,), float64, whose means are the shares.
    """
    rows = [
        torch.cdist(part, training.double(), compute_mode="use_mm_for_euclid_dist").topk(2, largest=False)
        for part in fake.double().split(_BLOCK)
    ]
    nearest, second = torch.cat([row.values for row in rows]).unbind(dim=1)
    own = neighbour_distance(training, 1)[torch.cat([row.indices[:, 0] for row in rows])]
    rounding = 1e-6 * training.double().norm(dim=1).mean()  # of float32 features, and of distances by products
    is_copy = (nearest < _RATIO * second) | (nearest <= rounding)
    return {"memorised_features": is_copy.double(), "authenticity": (nearest > own).double()}
