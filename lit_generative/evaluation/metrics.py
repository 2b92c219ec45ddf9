"""The :class:`torchmetrics.Metric` classes that collect features, over batches and over processes.

The maths is in :mod:`lit_generative.evaluation.distances`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.utilities import dim_zero_cat

from lit_generative.evaluation.distances import (
    check_sizes,
    density_coverage,
    frechet_distance,
    frechet_of_few,
    kernel_distance,
    precision_recall,
)
from lit_generative.evaluation.extractors import Extractor
from lit_generative.processes import gather

__all__ = [
    "FrechetDistance",
    "SampleQuality",
    "class_report",
    "count_classes",
    "frechet_of",
    "own_order",
    "sample_quality",
]

_NAMES = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")
_MISSING_BELOW = 0.05  # of the expected number; not 0, for a classifier's mistakes put a few images into any class
_RARE_BELOW = 0.5
_LEAST_EXPECTED = 20  # images; by chance 20 become less than half once in 200 times


class _Given(nn.Module):
    """Stands where torchmetrics wants a network: the features are computed already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features.double()


class FrechetDistance(FrechetInceptionDistance):
    """torchmetrics' FID on features that were computed elsewhere, with :func:`frechet_distance` for its last step.

    The sums are float64 and are added up exactly over processes.

    Args:
        num_features: Features an image, D.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__(feature=_Given(num_features))

    def compute(self) -> Tensor:
        """The distance so far, a float64 scalar."""
        real = _moments(self.real_features_sum, self.real_features_cov_sum, self.real_features_num_samples)
        fake = _moments(self.fake_features_sum, self.fake_features_cov_sum, self.fake_features_num_samples)
        return frechet_distance(*real, *fake)


def _moments(total: Tensor, products: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    mean = total / n
    return mean, (products - n * mean.outer(mean)) / (n - 1)


class SampleQuality(Metric):
    """All distances of a set of fake images to a set of real ones, from features that are computed once an image.

    Several processes give the value that one process would: each updates with its own share of the images.

    Args:
        num_features: Features an image, D.
        extra: Gives more metrics by name, from the features (M, D) of the fake images of all processes.
    """

    full_state_update = False
    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self, num_features: int, extra: Callable[[Tensor], dict[str, Tensor]] | None = None) -> None:
        super().__init__()
        self.num_features = num_features
        self.extra = extra
        self.frechet = FrechetDistance(num_features)
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("fake", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:
        """Add the features (B, D) of real or of fake images."""
        (self.real if real else self.fake).append(features.float())
        self.frechet.update(features, real)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """As the base class does; a process without images takes part with none (torchmetrics would hang)."""
        for features in (self.real, self.fake):
            features.append(torch.empty(0, self.num_features, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """Frechet and kernel distance, precision, recall, density, coverage and ``extra`` by name, float64 scalars.

        They are not a number, and ``extra`` is left out, if a feature is not finite.

        Raises:
            ValueError: If either set has fewer than six images.
        """
        real, fake = dim_zero_cat(self.real), dim_zero_cat(self.fake)
        if not (real.isfinite().all() and fake.isfinite().all()):
            return {name: torch.tensor(torch.nan, dtype=torch.double, device=real.device) for name in _NAMES}
        distances = _distances(real, fake)  # which refuses sets that are too small
        found = {"frechet_distance": self.frechet.compute(), **distances}
        return found | (self.extra(fake) if self.extra else {})

    def collected(self) -> tuple[Tensor, Tensor]:
        """Return the features of the real and of the fake images of all processes, (N, D) and (M, D)."""
        return gather(torch.cat(self.real)), gather(torch.cat(self.fake))


def sample_quality(
    real: Tensor, fake: Tensor, extra: Callable[[Tensor], dict[str, Tensor]] | None = None
) -> dict[str, Tensor]:
    """Return what :class:`SampleQuality` computes of features (N, D) and (M, D), without communication."""
    found = {"frechet_distance": frechet_of(real, fake), **_distances(real, fake)}
    return found | (extra(fake) if extra else {})


def own_order(features: Tensor) -> Tensor:
    """Return an order of features (N, D) that they alone decide, not that in which processes found them; (N,)."""
    x = features.double()
    return (x @ torch.arange(1, x.shape[1] + 1, dtype=torch.double, device=x.device).cos()).argsort()


def frechet_of(real: Tensor, fake: Tensor) -> Tensor:
    """Return the Fréchet distance of features (N, D) and (M, D), a float64 scalar."""
    if min(len(real), len(fake)) <= real.shape[1]:
        return frechet_of_few(real, fake)
    mu1, mu2 = (x.double().mean(dim=0) for x in (real, fake))
    cov1, cov2 = (torch.atleast_2d(x.double().T.cov()) for x in (real, fake))
    return frechet_distance(mu1, cov1, mu2, cov2)


def _distances(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    check_sizes(real, fake, neighbours=5)
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    return {
        "kernel_distance": kernel_distance(real, fake),
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
    }


def count_classes(extractor: Extractor, features: Tensor) -> Tensor:
    """Return how many images with the features (N, D) a classifier puts into each of its classes, (K,)."""
    return extractor.classify(features).argmax(dim=1).bincount(minlength=len(extractor.class_names or ()))


def class_report(class_names: Sequence[str], real: Tensor, fake: Tensor) -> dict[str, Any]:
    """Say into which classes a classifier puts fake images, against what the real ones lead to expect.

    The expectation is the classifier's own histogram of the real images, so its habitual mistakes do not count.

    Args:
        class_names: Names of the K classes.
        real: Real images in each of them, (K,).
        fake: Fake images in each of them, (K,).

    Returns:
        Fake images by class name (``histogram``), how many were ``expected``, and lists of names: ``missing`` are the
        classes with less than 5% of the expected images, ``rare`` the others with less than half, both only where at
        least 20 images are expected.
    """
    expected = real * (fake.sum() / real.sum())
    found = dict(zip(class_names, zip(fake.tolist(), expected.tolist(), strict=True), strict=True))
    shares = {name: fake / n for name, (fake, n) in found.items() if n >= _LEAST_EXPECTED}
    return {
        "histogram": {name: fake for name, (fake, _) in found.items()},
        "expected": {name: round(n, 1) for name, (_, n) in found.items()},
        "missing": [name for name, share in shares.items() if share < _MISSING_BELOW],
        "rare": [name for name, share in shares.items() if _MISSING_BELOW <= share < _RARE_BELOW],
    }
