"""FD-infinity, the Vendi score, the CMMD and distances by class: against NumPy and SciPy, and by what they are for."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from lit_generative.evaluation.distances import frechet_distance
from lit_generative.evaluation.extended import (
    class_distances,
    frechet_infinity,
    gaussian_kernel_distance,
    vendi_score,
)
from lit_generative.evaluation.metrics import frechet_of
from lit_generative.evaluation.too_few import TooFewImagesError


def points(count: int, features: int = 8, shift: float = 0.0, seed: int = 0) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed)) + shift


def numpys_frechet(a: np.ndarray, b: np.ndarray) -> float:
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root))


def test_frechet_infinity_is_the_intercept_of_a_line_in_one_over_n() -> None:
    real, fake = points(400).double(), points(300, shift=0.2, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    sizes = np.linspace(30, 300, 15).astype(int)
    found = [numpys_frechet(real.numpy(), fake[torch.randperm(300, generator=generator)[:n]].numpy()) for n in sizes]
    _, intercept = np.polyfit(1 / sizes, found, 1)
    assert float(frechet_infinity(real, fake)) == pytest.approx(intercept, rel=1e-6)


def test_frechet_infinity_hardly_depends_on_the_number_of_samples() -> None:
    real = points(20_000)
    lots = {n: [points(n, shift=0.2, seed=seed) for seed in range(10)] for n in (100, 1600)}
    plain, infinite = (
        [float(torch.stack([metric(real, lot) for lot in lots[n]]).mean()) for n in lots]
        for metric in (frechet_of, frechet_infinity)
    )
    assert plain[0] > plain[1] + 0.15
    assert infinite == pytest.approx([0.32, 0.32], abs=0.06)  # in truth: eight features, shifted by 0.2 each
    with pytest.raises(TooFewImagesError, match="59 samples are too few: FD-infinity needs at least 60"):
        frechet_infinity(real, real[:59])


@pytest.mark.parametrize(("n", "m"), [(20, 15), (20, 300), (300, 20), (40, 41)])
def test_the_distance_of_few_images_is_that_of_their_covariances(n: int, m: int) -> None:
    real, fake = points(n, 40).double(), points(m, 40, 0.3, seed=1).double() * 1.3
    moments = [(x.mean(dim=0), x.T.cov()) for x in (real, fake)]
    whole = frechet_distance(*moments[0], *moments[1])
    assert float(frechet_of(real, fake)) == pytest.approx(float(whole), rel=1e-7)


def test_the_vendi_score_is_that_of_the_kernel_of_all_pairs() -> None:
    for count in (5, 50):  # fewer and more than features
        rows = points(count).double().numpy()
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        shares = np.linalg.eigvalsh(rows @ rows.T / count)
        shares = shares[shares > 1e-12]
        assert float(vendi_score(points(count))) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-6)


def test_the_vendi_score_counts_what_is_different() -> None:
    assert float(vendi_score(torch.eye(7))) == pytest.approx(7)
    assert float(vendi_score(torch.eye(7).repeat(5, 1))) == pytest.approx(7)
    assert float(vendi_score(torch.ones(9, 4))) == pytest.approx(1)


def test_the_gaussian_kernel_is_that_of_rows_of_unit_length() -> None:
    x, y = points(30).double(), points(20, shift=0.5, seed=1).double()
    a, b = ((z / z.norm(dim=1, keepdim=True)).numpy() for z in (x, y))

    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.exp(-((one[:, None] - other) ** 2).sum(-1) / (2 * 10.0**2))

    within = [(kernel(z, z).sum() - len(z)) / (len(z) * (len(z) - 1)) for z in (a, b)]
    expected = 1000 * (sum(within) - 2 * kernel(a, b).mean())
    assert float(gaussian_kernel_distance(x, y)) == pytest.approx(expected, rel=1e-6)
    assert float(gaussian_kernel_distance(x * 3, y * 0.1)) == pytest.approx(expected, rel=1e-6)


def test_the_gaussian_distance_of_one_distribution_is_0_on_average() -> None:
    found = torch.stack(
        [gaussian_kernel_distance(points(30, seed=2 * i), points(30, seed=2 * i + 1)) for i in range(50)]
    )
    assert abs(float(found.mean())) < 3 * float(found.std()) / 50**0.5
    assert float(found.min()) < 0


def test_a_class_that_is_drawn_badly_is_seen() -> None:
    real, fake = points(300), points(300, seed=1)
    labels = torch.arange(300) % 3
    fake[labels == 1] += 2
    found = class_distances(real, fake, labels, labels, ["boot", "bag", "shirt"])
    assert set(found) == {"boot", "bag", "shirt"}
    assert found["bag"]["kernel_distance"] > 20 * max(abs(found[name]["kernel_distance"]) for name in ("boot", "shirt"))
    assert found["bag"]["frechet_distance"] > 5 * found["boot"]["frechet_distance"]
    assert set(class_distances(real[:7], fake, labels[:7], labels, ["boot", "bag", "shirt"])) == set()
