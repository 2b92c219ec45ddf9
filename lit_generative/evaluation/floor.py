"""The floor: what a perfect model would get, from real images that neither a model nor an extractor was trained on."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_generative.evaluation.metrics import own_order, sample_quality
from lit_generative.evaluation.too_few import LEAST_IMAGES

__all__ = ["SPLITS", "floor_sizes", "real_floor"]

MOST_IMAGES = 4000  # in a split: neighbours among more take minutes
SPLITS = 10  # a spread that is known to a quarter, 1 / sqrt(2 (SPLITS - 1))


def floor_sizes(num_real: int, num_samples: int) -> tuple[int, int] | None:
    """Return into how many images the real ones, at most 4,000, are split, in the proportion of real ones to samples.

    Returns:
        The two numbers; None if there are too few real images.
    """
    total = min(num_real, MOST_IMAGES)
    first = round(total * num_real / (num_real + num_samples))
    first = min(max(first, LEAST_IMAGES), total - LEAST_IMAGES)
    return (first, total - first) if first >= LEAST_IMAGES else None


def real_floor(
    real: Tensor,
    num_samples: int,
    extra: Callable[[Tensor], dict[str, Tensor]] | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""Return what a perfect model would get, from random splits of held-out real images into two parts.

    The parts are in the proportion of N real images to M samples, :math:`r N` and :math:`r M`, where
    :math:`r = N / (N + M)` if there are no more than 4,000 real images. They play their roles, and have the classes in
    equal shares. A Fréchet distance of two lots of one distribution is about c (1/n + 1/m) (Chong & Forsyth 2020,
    arXiv:1911.07023, section 3; docs/evaluation.md has measurements), so that r times the distance of the parts is that
    of N against M; a kernel distance's expectation is 0 for any size, and its spread falls like 1/n, too. The metrics
    of nearest neighbours depend on the proportion of the two numbers, which is kept, and little on the numbers: their
    mean is taken as it is, which is too high by 0.01 for parts of some hundred images, and their spread, which falls
    like 1/sqrt(n), times sqrt(r).

    The splits of one set are the draws of a permutation test: the number of a perfect model that draws the classes in
    their shares is within two spreads of the mean about 19 times in 20.

    Args:
        real: Features (N, D) of images that nothing was trained on.
        num_samples: M.
        extra: Gives more metrics by name, from the features of the part in the samples' role.
        labels: Their classes (N,), if they are known.
        seed: Of the splits.

    Returns:
        Mean and spread (standard deviation) of each metric, (2,); {} if there are too few images.
    """
    sizes = floor_sizes(len(real), num_samples)
    if sizes is None:
        return {}
    order = own_order(real)
    real, labels = real[order], None if labels is None else labels[order.to(labels.device)]
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Tensor]] = {}
    for _ in range(SPLITS):
        order = _shuffled(len(real), labels, generator).to(real.device)
        parts = real[order[: sizes[0]]], real[order[len(order) - sizes[1] :]]
        for name, value in sample_quality(*parts, extra).items():
            found.setdefault(name, []).append(value.double())
    share = (1 / len(real) + 1 / num_samples) / (1 / sizes[0] + 1 / sizes[1])
    return {name: _corrected(name, torch.stack(values), share) for name, values in found.items()}


def _shuffled(n: int, labels: Tensor | None, generator: torch.Generator) -> Tensor:
    """Return a random order of n images whose first part, wherever it ends, has its share of each class; (n,)."""
    order = torch.randperm(n, generator=generator)
    if labels is None:
        return order
    place = torch.empty(n, dtype=torch.double)  # in [0, 1) within the class
    for label in labels.cpu().unique():
        own = order[labels.cpu()[order] == label]
        offset = torch.rand((), generator=generator, dtype=torch.double)
        place[own] = (torch.arange(len(own)) + offset) / len(own)
    return place.argsort()


def _corrected(name: str, values: Tensor, share: float) -> Tensor:
    """Mean and spread at the full numbers of images, from those of splits."""
    mean, spread = values.mean(), values.std()
    if name in ("frechet_distance", "kernel_distance"):
        return torch.stack([share * mean, share * spread])
    return torch.stack([mean, share**0.5 * spread])
