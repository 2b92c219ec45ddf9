"""How far a set of generated images is from a set of real ones, in the features of some extractor.

Pure functions of two feature matrices, computed in float64. :mod:`lit_generative.evaluation.metrics` collects the
features over batches and processes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lit_generative.evaluation.too_few import TooFewImagesError

__all__ = [
    "check_sizes",
    "density_coverage",
    "frechet_distance",
    "frechet_of_few",
    "kernel_distance",
    "neighbour_distance",
    "precision_recall",
    "tied_share",
]

_TIED = 1e-5  # of the features' spread: those of equal images may differ in their last digits
_BLOCK = 1024  # rows of a distance or kernel matrix held at a time: 400 MB against 50,000 columns


def frechet_distance(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> Tensor:
    r"""Fréchet distance of two Gaussians: Heusel et al. 2017 (arXiv:1706.08500), Equation 6.

    .. math:: \|\mu_1 - \mu_2\|^2 + \mathrm{tr}(\Sigma_1 + \Sigma_2 - 2 (\Sigma_1 \Sigma_2)^{1/2})

    Args:
        mu1: Mean of the first, (D,).
        cov1: Covariance of the first, (D, D); may be singular.
        mu2: Mean of the second, (D,).
        cov2: Covariance of the second, (D, D); may be singular.

    Returns:
        The squared distance, a float64 scalar.
    """
    mu1, cov1, mu2, cov2 = mu1.double(), cov1.double(), mu2.double(), cov2.double()
    return (mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * _trace_of_root(cov1, cov2)


def frechet_of_few(real: Tensor, fake: Tensor) -> Tensor:
    r"""Fréchet distance of features of which one set has no more than D rows, by matrices of its size.

    With the covariances :math:`A_1^\top A_1` and :math:`A_2^\top A_2`, where A are the centred rows over
    :math:`\sqrt{n - 1}`, the trace of the root of their product is the sum of the singular values of
    :math:`A_1 A_2^\top`.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).

    Returns:
        The squared distance, a float64 scalar.
    """
    real, fake = real.double(), fake.double()
    roots = [(x - x.mean(dim=0)) / (len(x) - 1) ** 0.5 for x in (real, fake)]
    # A' A stays what it is if the triangle of A's QR decomposition takes its place
    small = [torch.linalg.qr(a, mode="r").R if len(a) > a.shape[1] else a for a in roots]
    traces = sum(a.square().sum() for a in roots)
    return (real.mean(dim=0) - fake.mean(dim=0)).square().sum() + traces - 2 * _singular_sum(small[0] @ small[1].T)


def _singular_sum(matrix: Tensor) -> Tensor:
    return torch.linalg.svdvals(matrix).sum()


def _trace_of_root(cov1: Tensor, cov2: Tensor) -> Tensor:
    """Trace of the square root of ``cov1 @ cov2``, without ever taking the root of a matrix that is not symmetric.

    With ``cov1 = L L'``, the eigenvalues of ``cov1 cov2`` are those of the symmetric ``L' cov2 L``.
    """
    factor, failed = torch.linalg.cholesky_ex(cov1)
    if not failed:
        return torch.linalg.eigvalsh(factor.T @ cov2 @ factor).clamp(min=0).sqrt().sum()
    # Fewer images than features. The singular values of A1' A2 with cov = A A' are those very roots, and their
    # rounding errors are not magnified by a root, as they are for the many eigenvalues that should be zero.
    return _singular_sum(_factor(cov1).T @ _factor(cov2))


def _factor(cov: Tensor) -> Tensor:
    """Some ``A`` with ``A A' = cov``, for a covariance of any rank."""
    values, vectors = torch.linalg.eigh(cov)
    negligible = values[-1] * len(cov) * torch.finfo(cov.dtype).eps
    return vectors * torch.where(values > negligible, values, 0).sqrt()


def kernel_distance(real: Tensor, fake: Tensor) -> Tensor:
    r"""Squared maximum mean discrepancy, cubic kernel: Bińkowski et al. 2018 (arXiv:1801.01401), Equations 3 and 4.

    .. math:: k(x, y) = (x^\top y / D + 1)^3

    It is the KID if the features are Inception's. This is the unbiased estimator over *all* pairs (the papers' tables
    average it over random subsets of 1,000): the same expectation with less variance, and nothing random about it.
    Being unbiased, it can be slightly negative.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).

    Raises:
        ValueError: If either set has fewer than two images.
    """
    check_sizes(real, fake, neighbours=1)
    real, fake = real.double(), fake.double()
    n, m = len(real), len(fake)
    within_real = (_kernel_sum(real, real) - _kernel_trace(real)) / (n * (n - 1))
    within_fake = (_kernel_sum(fake, fake) - _kernel_trace(fake)) / (m * (m - 1))
    return within_real + within_fake - 2 * _kernel_sum(real, fake) / (n * m)


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([(rows @ y.T / y.shape[1] + 1).pow(3).sum() for rows in x.split(_BLOCK)]).sum()


def _kernel_trace(x: Tensor) -> Tensor:
    return (x.square().mean(dim=1) + 1).pow(3).sum()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """Improved precision and recall: Kynkäänniemi et al. 2019 (arXiv:1904.06991), Equations 1 and 2.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).
        k: A set's manifold is the union of the balls around its points that reach their k-th neighbour.

    Returns:
        The share of fake images within the real manifold, and of real images within the fake one, each in [0, 1].

    Raises:
        ValueError: If a set has no k-th neighbour.
    """
    check_sizes(real, fake, neighbours=k)
    return _share_within(fake, real, k), _share_within(real, fake, k)


def _share_within(points: Tensor, manifold: Tensor, k: int) -> Tensor:
    radii = neighbour_distance(manifold, k)
    inside = [(distances <= radii).any(dim=1) for distances in _distance_rows(points, manifold)]
    return torch.cat(inside).double().mean()


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """Density and coverage: Naeem et al. 2020 (arXiv:2002.09797), Equations 3 and 4.

    Args:
        real: Features, (N, D).
        fake: Features, (M, D).
        k: The ball around a real image reaches its k-th real neighbour.

    Returns:
        Density, in how many real balls a fake image is on average, divided by k (about 1 for a perfect model, can be
        above); coverage, the share of real balls with a fake image in them, in [0, 1].

    Raises:
        ValueError: If a set has no k-th neighbour.
    """
    check_sizes(real, fake, neighbours=k)
    radii = neighbour_distance(real, k)
    inside = torch.zeros(len(real), dtype=torch.double, device=real.device)  # fake images in each real ball
    for distances in _distance_rows(fake, real):
        inside += (distances < radii).sum(dim=0)
    return inside.sum() / (k * len(fake)), (inside > 0).double().mean()


def _distance_rows(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Euclidean distances of blocks of ``x`` to all of ``y``, each (at most _BLOCK, len(y))."""
    y = y.double()
    for rows in x.double().split(_BLOCK):
        yield torch.cdist(rows, y)


def neighbour_distance(x: Tensor, k: int) -> Tensor:
    """Distance of every point to its k-th neighbour, not counting itself; (N,)."""
    return torch.cat([d.kthvalue(k + 1, dim=1).values for d in _distance_rows(x, x)])


def tied_share(x: Tensor, k: int = 5) -> float:
    """Return the share of points (N, D) that have k others at no distance: they occur more than k times.

    The ball to the k-th neighbour has no radius then, and no sample is within it, so that density and coverage count
    none there. It is 0 of fewer than k + 1 points.
    """
    if len(x) <= k:
        return 0.0
    spread = x.double().var(dim=0).sum().sqrt()
    return float((neighbour_distance(x, k) <= _TIED * spread).double().mean())


def check_sizes(real: Tensor, fake: Tensor, neighbours: int) -> None:
    """Raise a TooFewImagesError unless each point of both sets has that many neighbours."""
    if min(len(real), len(fake)) <= neighbours:
        raise TooFewImagesError(
            f"{len(real)} real and {len(fake)} fake images are too few: this metric needs at least "
            f"{neighbours + 1} of each"
        )
