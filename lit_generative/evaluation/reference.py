"""The real images' side of a comparison: their features, and the floor. Both are computed once and cached on disk."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from lit_generative.contracts import ImageData, Split
from lit_generative.evaluation.cache import TensorCache
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.metrics import SampleQuality
from lit_generative.evaluation.progress import counter
from lit_generative.processes import broadcast, gather

__all__ = ["Reference"]


@dataclasses.dataclass
class Reference:
    """What is known of the real images that samples are compared with.

    Attributes:
        features: Their features, (N, D) on rank 0 and (0, D) on others, so that a metric counts them once.
        num_images: How many there are, N.
        label_counts: How many there are of each label, (K,); None if there are no labels.
        floor: Each metric between them and as many training images as samples are drawn: what a perfect model gets.
        num_floor: How many training images there were.
    """

    features: Tensor
    num_images: int
    label_counts: Tensor | None
    floor: dict[str, float]
    num_floor: int

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
        """Read it from the cache, or compute it on the device of ``extractor``."""
        images = {"data": data.fingerprint(split, limit), "split": split, "limit": limit, "extractor": extractor.digest}
        real = cache.get(images, lambda: _real(extractor, data, split, limit, progress))
        num_features, num_images, label_counts = broadcast(
            (real["features"].shape[1], len(real["features"]), real.get("label_counts")) if real else (0, 0, None)
        )
        features = (real["features"] if real else torch.empty(0, num_features)).to(extractor.device)
        others = {"floor": data.fingerprint("train", num_samples), "num_samples": num_samples}
        floor = broadcast(cache.get(images | others, lambda: _floor(extractor, data, features, num_samples, progress)))
        num_floor = int(floor.pop("num_images"))
        return cls(features, num_images, label_counts, {k: v.item() for k, v in floor.items()}, num_floor)


def _real(extractor: Extractor, data: ImageData, split: Split, limit: int | None, progress: bool) -> dict[str, Tensor]:
    found = list(_extract(extractor, data, split, limit, progress))
    tensors = {"features": gather(torch.cat([features for features, _ in found]))}
    labels = [label for _, label in found if label is not None]
    if labels and data.num_classes:
        tensors["label_counts"] = gather(torch.cat(labels)).bincount(minlength=data.num_classes)
    return tensors


def _floor(extractor: Extractor, data: ImageData, real: Tensor, num_samples: int, progress: bool) -> dict[str, Tensor]:
    quality = SampleQuality(real.shape[1], extractor.metrics).to(real.device)
    quality.update(real, real=True)
    num_images = 0
    for features, _ in _extract(extractor, data, "train", num_samples, progress):
        quality.update(features, real=False)
        num_images += len(features)
    return quality.compute() | {"num_images": gather(torch.tensor([num_images], device=real.device)).sum()}


def _extract(
    extractor: Extractor, data: ImageData, split: Split, limit: int | None, progress: bool
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Features and labels of this process's share of a split, a batch at a time."""
    total = data.num_images(split)
    total = limit if total is None else min(total, limit or total)
    with counter(f"features of {split} images", total, progress) as bar:
        for batch in data.loader(split, batch_size=extractor.max_batch, limit=limit):
            features = extractor(batch["image"].to(extractor.device))
            yield features, batch["label"].to(extractor.device) if "label" in batch else None
            bar.update(len(features))
