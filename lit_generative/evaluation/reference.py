"""The real images' side of a comparison: their features, and the floor. Both are computed once and cached on disk."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lit_generative.contracts import ImageData, Split
from lit_generative.evaluation.cache import TensorCache
from lit_generative.evaluation.distances import tied_share
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.floor import floor_sizes, real_floor
from lit_generative.evaluation.identity import MODULUS, code_digest, content_digest, content_sum
from lit_generative.evaluation.progress import counter
from lit_generative.processes import broadcast, gather

__all__ = ["Reference", "real_features"]

MOST_TIED = 10_000  # images among which duplicates are looked for


@dataclasses.dataclass
class Reference:
    """What is known of the real images that samples are compared with.

    Attributes:
        features: Their features, (N, D) on rank 0 and (0, D) on others, so that a metric counts them once.
        num_images: How many there are, N.
        labels: Their labels, (N,) on rank 0 and (0,) on others; (0,) everywhere if there are none.
        label_counts: How many there are of each label, (K,); None if there are no labels.
        floor: What a perfect model gets in each metric, see :func:`~lit_generative.evaluation.floor.real_floor`.
        floor_spread: The standard deviation of that.
        num_floor: The real images in each of the two parts that the floor is of; None if they are too few.
        content: Identifies the images by their content.
        tied: The share of them whose fifth neighbour is at no distance: duplicates.
    """

    features: Tensor
    num_images: int
    labels: Tensor
    label_counts: Tensor | None
    floor: dict[str, float]
    floor_spread: dict[str, float]
    num_floor: tuple[int, int] | None
    content: str
    tied: float

    @classmethod
    def make(
        cls,
        extractor: Extractor,
        data: ImageData,
        split: Split,
        limit: int | None,
        num_samples: int,
        cache: TensorCache,
        progress: bool,
    ) -> "Reference":
        """Read it from the cache, or compute it on the device of ``extractor``.

        Raises:
            ValueError: If features of real images are not finite.
        """
        key, real = real_features(extractor, data, split, limit, cache, progress)
        labels = real.get("labels")
        num_features, num_images, label_counts, content = broadcast(
            (
                real["features"].shape[1],
                len(real["features"]),
                None if labels is None else labels.bincount(minlength=data.num_classes or 0),
                int(real["content"]),
            )
            if real
            else (0, 0, None, 0)
        )
        features = (real["features"] if real else torch.empty(0, num_features)).to(extractor.device)
        floor = cache.get(key | {"num_samples": num_samples}, lambda: _floor(features, labels, num_samples, extractor))
        values = broadcast({name: value.tolist() for name, value in floor.items()})
        tied = float(values.pop("tied"))  # type: ignore[arg-type]
        return cls(
            features,
            num_images,
            (torch.empty(0, dtype=torch.long) if labels is None else labels).to(extractor.device),
            label_counts,
            {name: mean for name, (mean, _) in values.items()},
            {name: spread for name, (_, spread) in values.items()},
            floor_sizes(num_images, num_samples),
            content_digest([content], num_images, data.image_shape),
            tied,
        )


def real_features(
    extractor: Extractor, data: ImageData, split: Split, limit: int | None, cache: TensorCache, progress: bool
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the features of a split, from the cache or computed, and the key that they have there.

    The key holds what the extractor returns on fixed images, so that it follows code and plain attributes, too. Another
    device may give other last digits, and then computes them anew.

    Returns:
        The key, and on rank 0 ``features`` (N, D), ``labels`` (N,) if there are any, and ``content``;
        on others nothing.
    """
    key: dict[str, Any] = {
        "data": data.fingerprint(split, limit),
        "split": split,
        "limit": limit,
        "extractor": extractor.digest,
        "probe": extractor.fingerprint(data.image_shape),
        "code": code_digest(),
    }
    return key, cache.get(key, lambda: _real(extractor, data, split, limit, progress))


def _real(extractor: Extractor, data: ImageData, split: Split, limit: int | None, progress: bool) -> dict[str, Tensor]:
    found = list(_extract(extractor, data, split, limit, progress))
    features = gather(torch.cat([features for features, _, _ in found]))
    if not features.isfinite().all():
        bad = int((~features.isfinite()).any(dim=1).sum())
        raise ValueError(
            f"extractor {extractor.name!r} gives features that are not finite for {bad} of {len(features)} {split} "
            f"images of {data.name}; mend it, or use another --evaluation.extractor"
        )
    tensors = {"features": features}
    labels = [label for _, label, _ in found if label is not None]
    if labels and data.num_classes:
        tensors["labels"] = gather(torch.cat(labels))
    contents = gather(torch.tensor([content for _, _, content in found], device=extractor.device))
    return tensors | {"content": contents.cpu().sum() % MODULUS}


def _floor(features: Tensor, labels: Tensor | None, num_samples: int, extractor: Extractor) -> dict[str, Tensor]:
    if len(features) == 0:  # of another rank than the first, whose result does not count
        return {}
    return real_floor(features, num_samples, extractor.metrics, labels) | {
        "tied": torch.tensor(tied_share(features[:MOST_TIED]))
    }


def _extract(
    extractor: Extractor, data: ImageData, split: Split, limit: int | None, progress: bool
) -> Iterator[tuple[Tensor, Tensor | None, int]]:
    """Features, labels and :func:`content_sum` of this process's share of a split, a batch at a time."""
    total = data.num_images(split)
    total = limit if total is None else min(total, limit or total)
    with counter(f"features of {split} images", total, progress) as bar:
        for batch in data.loader(split, batch_size=extractor.max_batch, limit=limit):
            features = extractor(batch["image"].to(extractor.device))
            label = batch["label"].to(extractor.device) if "label" in batch else None
            yield features, label, content_sum(batch["image"])
            bar.update(len(features))
