"""What papers report beside the usual distances: FD-infinity, the Vendi score, the CMMD, distances by class.

Pure functions of feature matrices, computed in float64; :func:`extended_metrics` puts them together.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_generative.contracts import ImageData
from lit_generative.evaluation.distances import check_sizes, kernel_distance
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.metrics import frechet_of, own_order
from lit_generative.evaluation.too_few import LEAST_IMAGES, TooFewImagesError

__all__ = [
    "class_distances",
    "distances_by_class",
    "extended_metrics",
    "frechet_infinity",
    "gaussian_kernel_distance",
    "vendi_score",
]

_POINTS = 15  # sizes from which FD-infinity is extrapolated, as Chong & Forsyth have them
_LEAST_FOR_INFINITY = 60
_BLOCK = 1024  # rows of a kernel matrix held at a time


def frechet_infinity(real: Tensor, fake: Tensor, seed: int = 0) -> Tensor:
    r"""Fréchet distance of infinitely many samples: Chong & Forsyth 2020 (arXiv:1911.07023), section 3.

    The distance of N samples is nearly linear in 1/N, if N is some times D. Of random subsets of 15 sizes, equally
    spaced up to M from M/10, or from 3 D where that is more, and at most from M/2, it is fitted by least squares, and
    the line's value at 1/N = 0 is returned. The real images are all compared with each time: what their number adds
    stays.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).
        seed: Of the subsets.

    Returns:
        The squared distance, a float64 scalar; noise may make it negative.

    Raises:
        TooFewImagesError: If there are fewer than 60 samples.
    """
    if len(fake) < _LEAST_FOR_INFINITY:
        raise TooFewImagesError(f"{len(fake)} samples are too few: FD-infinity needs at least {_LEAST_FOR_INFINITY}")
    generator = torch.Generator().manual_seed(seed)
    smallest = min(max(len(fake) // 10, 3 * fake.shape[1]), len(fake) // 2)
    sizes = np.linspace(smallest, len(fake), _POINTS).astype(int).tolist()
    chosen = (torch.randperm(len(fake), generator=generator)[:size].to(fake.device) for size in sizes)
    distances = torch.stack([frechet_of(real, fake[rows]) for rows in chosen]).cpu()
    line = torch.stack([torch.ones(_POINTS).double(), 1 / torch.tensor(sizes).double()], dim=1)
    return torch.linalg.lstsq(line, distances.double().unsqueeze(1)).solution[0, 0].to(real.device)


def vendi_score(features: Tensor) -> Tensor:
    r"""The effective number of different images: Friedman & Dieng 2023 (arXiv:2210.02410), Definition 3.1.

    It is the exponential of the entropy of the eigenvalues of K / N, where K holds the cosines of all pairs. Those are
    the eigenvalues of X' X / N for X with rows of unit length, a matrix of D x D. It is 1 if all images are equal, and
    at most the smaller of N and D. It grows with N, so that it compares with that of as many other images.

    Args:
        features: (N, D).
    """
    rows = F.normalize(features.double(), dim=1)
    smaller = rows.T @ rows if rows.shape[0] > rows.shape[1] else rows @ rows.T
    shares = torch.linalg.eigvalsh(smaller / len(rows)).clamp(min=0)
    return torch.special.entr(shares).sum().exp()


def gaussian_kernel_distance(real: Tensor, fake: Tensor, bandwidth: float = 10.0) -> Tensor:
    r"""Squared maximum mean discrepancy with a Gaussian kernel, times 1,000: Jayasumana et al. 2024 (arXiv:2401.09603).

    .. math:: k(x, y) = \exp(-\|x - y\|^2 / 2 \sigma^2)

    of features that are brought to unit length. In those of CLIP's ViT-L/14 at 336 pixels, with :math:`\sigma = 10`, it
    is their CMMD. The estimator is the unbiased one of their section 4, over all pairs; it can be slightly negative.
    (Their program has the pairs of an image with itself in, which adds up to 20 / n for n images on each side.)

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).
        bandwidth: :math:`\sigma`.

    Raises:
        TooFewImagesError: If either set has fewer than two images.
    """
    check_sizes(real, fake, neighbours=1)
    real, fake = (F.normalize(features.double(), dim=1) for features in (real, fake))
    n, m = len(real), len(fake)
    within = [(_gaussian_sum(x, x, bandwidth) - len(x)) / (len(x) * (len(x) - 1)) for x in (real, fake)]
    return 1000 * (within[0] + within[1] - 2 * _gaussian_sum(real, fake, bandwidth) / (n * m))


def _gaussian_sum(x: Tensor, y: Tensor, bandwidth: float) -> Tensor:
    """Sum of the kernel over all pairs of rows of unit length, of which ||x - y||^2 = 2 - 2 x.y."""
    return torch.stack([((rows @ y.T - 1) / bandwidth**2).exp().sum() for rows in x.split(_BLOCK)]).sum()


def class_distances(
    real: Tensor, fake: Tensor, real_labels: Tensor, fake_labels: Tensor, class_names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Fréchet and kernel distance of each class, for what is good on average may be bad at one.

    A Fréchet distance of few images is too high (its bias falls as 1/n), and the more so by class; the kernel distance
    has no bias.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).
        real_labels: Class of each real image, (N,).
        fake_labels: Class of each sample, (M,), that it was asked to be of or that a classifier puts it into.
        class_names: Names of the classes.

    Returns:
        By class name ``frechet_distance`` and ``kernel_distance``; classes of fewer than six images on either side are
        left out.
    """
    found = {}
    for label, name in enumerate(class_names):
        ours, theirs = real[real_labels == label], fake[fake_labels == label]
        if min(len(ours), len(theirs)) >= LEAST_IMAGES:
            values = {"frechet_distance": frechet_of(ours, theirs), "kernel_distance": kernel_distance(ours, theirs)}
            found[name] = {metric: float(value) for metric, value in values.items()}
    return found


def distances_by_class(
    real: Tensor,
    fake: Tensor,
    extractor: Extractor,
    data: ImageData,
    real_labels: Tensor,
    fake_labels: Tensor | None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the ``distances`` of each class: of those asked for, else of those that the extractor sees; {} without.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).
        extractor: Whose features they are.
        data: Has the classes' names.
        real_labels: (N,), or (0,) if there are none.
        fake_labels: What samples were asked to be, (M,); None if nothing was asked.
    """
    if fake_labels is not None and len(real_labels) == len(real):
        names = list(map(str, data.class_names or range(data.num_classes or 0)))
        return {"distances": class_distances(real, fake, real_labels, fake_labels, names)}
    if extractor.class_names is None:
        return {}
    seen_real, seen_fake = (extractor.classify(rows).argmax(dim=1) for rows in (real, fake))
    return {"distances": class_distances(real, fake, seen_real, seen_fake, extractor.class_names)}


def extended_metrics(real: Tensor, fake: Tensor, extractor: Extractor) -> tuple[dict[str, float], dict[str, float]]:
    """Return the metrics of this file by name, and what real images reach, where that means something.

    The Vendi score is that of as many samples as real images, at most all of either; FD-infinity is left out of fewer
    than 60 samples.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).
        extractor: Whose features they are. The Gaussian kernel's distance is called ``cmmd`` in CLIP's, and is left out
            where papers have none, that is, in all but CLIP's and DINOv2's.
    """
    count = min(len(real), len(fake))
    real, fake = (_shuffled(rows) for rows in (real, fake))
    found = {"vendi_score": vendi_score(fake[:count])}
    if len(fake) >= _LEAST_FOR_INFINITY:
        found["frechet_infinity"] = frechet_infinity(real, fake)
    if extractor.has_gaussian_distance:
        found["gaussian_kernel_distance"] = gaussian_kernel_distance(real, fake)
    named = {extractor.metric_names.get(name, name): float(value) for name, value in found.items()}
    return named, {"vendi_score": float(vendi_score(real[:count]))}


def _shuffled(rows: Tensor) -> Tensor:
    """Return features in a random order that does not depend on the one that they are given in."""
    generator = torch.Generator().manual_seed(0)
    return rows[own_order(rows)[torch.randperm(len(rows), generator=generator).to(rows.device)]]
