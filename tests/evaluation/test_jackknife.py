"""Standard errors against a formula, and against what fresh samples do."""

import pytest
import torch
from stand_ins import NoisyCopies
from torch import nn

from lit_generative.evaluation import Evaluator, Extractor, jackknife_errors
from lit_generative.evaluation.jackknife import quality_errors
from lit_generative.evaluation.metrics import sample_quality

QUIET = {"progress": False}


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_the_error_of_a_mean_is_its_formula():
    rows = normal(300, 3, 0) * torch.tensor([1.0, 2.0, 5.0])
    found = jackknife_errors(lambda half: dict(zip("abc", half.mean(dim=0), strict=True)), rows, halves=3000)
    expected = rows.double().std(dim=0) / 300**0.5
    for name, error in zip("abc", expected.tolist(), strict=True):
        assert found[name] == pytest.approx(error, rel=0.05)


def test_the_error_of_a_median_is_that_of_the_theory():
    rows = normal(2000, 1, 0)
    found = jackknife_errors(lambda half: {"median": half.median()}, rows, halves=500)
    assert found["median"] == pytest.approx((torch.pi / 2 / 2000) ** 0.5, rel=0.15)


def test_the_errors_of_metrics_are_the_spread_over_fresh_samples():
    real = normal(250, 6, 0)
    fresh = [sample_quality(real, 0.8 * normal(250, 6, seed)) for seed in range(1, 51)]
    spread = {name: float(torch.stack([metrics[name] for metrics in fresh]).std()) for name in fresh[0]}
    errors = [quality_errors(real, 0.8 * normal(250, 6, seed), Extractor(nn.Identity())) for seed in range(1, 7)]
    for name, expected in spread.items():
        found = sum(error[name] ** 2 for error in errors) ** 0.5 / len(errors) ** 0.5
        most = 2.2 if name == "coverage" else 1.5  # how many balls are occupied is far from linear
        assert 0.65 * expected < found < most * expected, name


def test_the_bias_of_half_as_many_samples_is_no_part_of_the_error():
    rows = normal(200, 1, 0)
    biased = jackknife_errors(lambda half: {"x": half.mean() + 1000 / len(half)}, rows)
    assert biased["x"] == pytest.approx(jackknife_errors(lambda half: {"x": half.mean()}, rows)["x"], rel=1e-4)


def test_the_same_seed_takes_the_same_halves():
    rows = normal(50, 2, 0)
    first, again, other = (jackknife_errors(lambda half: {"x": half.mean()}, rows, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_evaluations_have_an_error_for_every_metric_if_asked(tmp_path, data, train_images):
    evaluator = Evaluator(num_samples=400, num_real=500, batch_size=150, cache_dir=str(tmp_path))
    model = NoisyCopies(*train_images, num_classes=10)
    drawn = []
    found = evaluator.evaluate(model, data, halves=3, on_samples=lambda images, features: drawn.append(images), **QUIET)
    assert found.errors.keys() == found.metrics.keys()
    accuracy = found.metrics["class_accuracy"]
    assert found.errors["class_accuracy"] == pytest.approx((accuracy * (1 - accuracy) / 400) ** 0.5)
    assert found.errors["missing_classes"] == 0
    assert 0 < found.errors["frechet_distance"] < found.metrics["frechet_distance"]
    assert [len(images) for images in drawn] == [150, 150, 100]
    plain = evaluator.evaluate(model, data, **QUIET)
    assert plain.errors == {}
    assert plain.metrics == found.metrics


class Signs(Extractor):
    """The sign of the first number as the class."""

    def classify(self, features):
        return torch.cat([-features[:, :1], features[:, :1]], dim=1)


def test_how_many_classes_are_missing_has_an_error_where_it_is_in_doubt():
    extractor = Signs(nn.Identity(), class_names=["minus", "plus"])
    real = normal(400, 2, 0)
    fake = -normal(400, 2, 1).abs()
    assert quality_errors(real, fake, extractor)["missing_classes"] == 0
    fake[:10] *= -1  # a class is missing below 5 of a half's 100
    assert 0.3 < quality_errors(real, fake, extractor, halves=20)["missing_classes"] < 0.6


def test_other_measurements_get_finite_images(tmp_path, data, train_images):
    model = NoisyCopies(*train_images)
    model.sample = lambda n, y=None, *, generator=None: torch.full((n, 1, 28, 28), torch.inf)
    drawn = []
    evaluator = Evaluator(num_samples=20, num_real=50, cache_dir=str(tmp_path))
    evaluator.evaluate(model, data, on_samples=lambda images, features: drawn.append(images), **QUIET)
    assert torch.equal(drawn[0], torch.ones(20, 1, 28, 28))


def test_too_few_of_anything_is_an_error(data, train_images):
    with pytest.raises(ValueError, match="halves=1: it must be at least 2; 10 are usual"):
        jackknife_errors(lambda half: {"x": half.mean()}, torch.zeros(4, 1), halves=1)
    with pytest.raises(ValueError, match="rows has 1 rows; at least 2 are needed"):
        jackknife_errors(lambda half: {"x": half.mean()}, torch.zeros(1, 1))
    with pytest.raises(ValueError, match="num_samples=11: it must be at least 12; standard errors"):
        Evaluator(num_samples=11).evaluate(NoisyCopies(*train_images), data, halves=10)
