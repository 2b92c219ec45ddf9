import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from lit_generative.evaluation.distances import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from lit_generative.evaluation.metrics import SampleQuality, class_report


def gaussians(n, m, d, seed=0, shift=0.3):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator) / math.sqrt(d)
    real = torch.randn(n, d, generator=generator) @ mix
    return real, torch.randn(m, d, generator=generator) @ mix.T + shift


def moments(x):
    return x.double().mean(dim=0), x.double().T.cov()


def test_frechet_distance_equals_its_definition_by_scipys_matrix_root():
    real, fake = gaussians(500, 400, 64)
    (mu1, cov1), (mu2, cov2) = moments(real), moments(fake)
    root = scipy.linalg.sqrtm((cov1 @ cov2).numpy()).real
    expected = (mu1 - mu2).square().sum().item() + np.trace((cov1 + cov2).numpy() - 2 * root)
    assert frechet_distance(mu1, cov1, mu2, cov2).item() == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_gaussians_along_axes_has_a_closed_form():
    a, b = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([4.0, 1.0, 0.0])
    found = frechet_distance(torch.zeros(3), a.diag(), torch.ones(3), b.diag())
    assert found.item() == pytest.approx(3 + (a.sqrt() - b.sqrt()).square().sum().item(), rel=1e-12)


def test_frechet_distance_of_singular_covariances_is_exact():
    real, fake = gaussians(20, 30, 60)
    (mu1, cov1), (mu2, cov2) = moments(real), moments(fake)
    # tr (S1 S2)^(1/2) is the nuclear norm of the product of the centred data matrices, which needs no root at all
    product = (real.double() - mu1) @ (fake.double() - mu2).T
    root = torch.linalg.svdvals(product).sum() / math.sqrt(19 * 29)
    expected = (mu1 - mu2).square().sum() + cov1.trace() + cov2.trace() - 2 * root
    assert frechet_distance(mu1, cov1, mu2, cov2).item() == pytest.approx(expected.item(), rel=1e-10)
    assert frechet_distance(mu1, cov1, mu1, cov1).item() == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_collapsed_samples_is_finite():
    mu, cov = moments(gaussians(500, 10, 8)[0])
    found = frechet_distance(mu, cov, mu, torch.zeros(8, 8))
    assert found.item() == pytest.approx(cov.trace().item(), rel=1e-12)


def test_kernel_distance_equals_torchmetrics_and_is_blind_to_the_order():
    real, fake = gaussians(1500, 1500, 32)
    expected = poly_mmd(real.double(), fake.double()).item()
    assert kernel_distance(real, fake).item() == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(real.flip(0), fake.roll(7, 0)).item() == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_unbiased():
    pairs = torch.randn(300, 2, 30, 8, generator=torch.Generator().manual_seed(0))  # two samples of one distribution
    values = torch.stack([kernel_distance(real, fake) for real, fake in pairs])
    assert values.mean().abs() < 3 * values.std() / math.sqrt(len(values))
    assert values.min() < 0


def test_precision_and_recall_see_quality_and_variety_apart():
    real, other = torch.randn(2, 600, 2, generator=torch.Generator().manual_seed(0))
    half = other[other[:, 0] > 0]
    precision, recall = precision_recall(real, half)
    assert precision > 0.9
    assert recall < 0.65  # what is missing costs recall only
    precision, recall = precision_recall(real, torch.cat([other, other + 100]))
    assert precision < 0.55
    assert recall > 0.9  # what is wrong costs precision only


def test_precision_counts_points_within_the_third_neighbours_distance():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    fake = torch.tensor([[5.9], [6.1], [-2.9], [50.0]])  # the balls of 0 and of 3 have radius 3
    assert precision_recall(real, fake)[0].item() == 0.5


def test_density_counts_balls_and_coverage_counts_them_once():
    real = torch.arange(10.0)[:, None]
    fake = torch.full((8, 1), 4.5)  # in the open balls of 1 to 8, whose fifth neighbour is 3 or more away
    radii = torch.tensor([5, 4, 3, 3, 3, 3, 3, 3, 4, 5.0])
    inside = ((real[:, 0] - 4.5).abs() < radii).sum().item()
    density, coverage = density_coverage(real, fake)
    assert density.item() == pytest.approx(inside / 5)
    assert coverage.item() == pytest.approx(inside / 10)


def test_blocks_change_nothing(monkeypatch):
    real, fake = gaussians(150, 130, 16)
    whole = [kernel_distance(real, fake), *precision_recall(real, fake), *density_coverage(real, fake)]
    monkeypatch.setattr("lit_generative.evaluation.distances._BLOCK", 7)
    blocks = [kernel_distance(real, fake), *precision_recall(real, fake), *density_coverage(real, fake)]
    assert torch.stack(blocks).numpy() == pytest.approx(torch.stack(whole).numpy(), rel=1e-10)


def test_too_few_images_are_an_error_that_says_how_many_would_do():
    with pytest.raises(ValueError, match="5 real and 9 fake images are too few: this metric needs at least 6"):
        density_coverage(torch.randn(5, 2), torch.randn(9, 2))


def test_sample_quality_equals_torchmetrics_fid_batch_by_batch():
    real, fake = gaussians(300, 260, 24)
    ours, theirs = SampleQuality(24), FrechetInceptionDistance(Identity(24))
    for batch in real.split(70):
        ours.update(batch, real=True)
        theirs.update(batch, real=True)
    for batch in fake.split(33):
        ours.update(batch, real=False)
        theirs.update(batch, real=False)
    found = ours.compute()
    assert found["frechet_distance"].item() == pytest.approx(theirs.compute().item(), rel=1e-6)
    assert found["recall"] == precision_recall(real, fake)[1]
    assert not ours.state_dict()


class Identity(torch.nn.Identity):
    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features


def test_the_report_names_missing_and_rare_classes_and_forgives_the_classifiers_own_habits():
    names, real = ["bag", "coat", "dress", "shirt"], torch.tensor([300, 300, 300, 40])  # it rarely says shirt
    found = class_report(names, real, torch.tensor([250, 90, 5, 36]))
    assert found["histogram"] == {"bag": 250, "coat": 90, "dress": 5, "shirt": 36}
    assert found["missing"] == ["dress"]
    assert found["rare"] == []
    assert class_report(names, real, torch.tensor([550, 90, 5, 36]))["rare"] == ["coat"]
