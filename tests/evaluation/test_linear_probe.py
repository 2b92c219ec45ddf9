import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp
from torch import Tensor

from lit_generative import ImageDataModule
from lit_generative.evaluation.linear_probe import fit_linear_probe


def clusters(n: int, distance: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three classes about the corners of a triangle, in coordinates of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    corners = torch.tensor([[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
    features = distance * corners[labels] + torch.randn(n, 4, generator=generator)
    return features * torch.tensor([1.0, 100.0, 0.01, 0.0]) + torch.tensor([50.0, 0.0, 0.0, 7.0]), labels


def solved_by_scipy(features: Tensor, labels: Tensor, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """The same objective's minimum, W and b, as scipy finds it from a start of its own."""
    f, y = features.double().numpy(), labels.numpy()
    std = f.std(0)
    f = (f - f.mean(0)) / np.where(std > 0, std, 1)
    n, d, k = len(f), f.shape[1], y.max() + 1

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        W, b = theta[: k * d].reshape(k, d), theta[k * d :]
        logits = f @ W.T + b
        log_p = logits - logsumexp(logits, axis=1, keepdims=True)
        residual = np.exp(log_p) - np.eye(k)[y]
        gradient = np.concatenate([(residual.T @ f + l2 * W).ravel(), residual.sum(0)])
        return -log_p[np.arange(n), y].sum() + l2 / 2 * (W**2).sum(), gradient

    start = np.random.default_rng(0).standard_normal(k * d + k)
    theta = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-7, "maxiter": 5000}).x
    return theta[: k * d].reshape(k, d), theta[k * d :]


@pytest.mark.parametrize("l2", [0.1, 1.0, 30.0])
def test_the_solution_is_scipys(l2: float) -> None:
    features, labels = clusters(150, 1.5)
    probe = fit_linear_probe(features, labels, l2)
    W, b = solved_by_scipy(features, labels, l2)
    np.testing.assert_allclose(probe.W.numpy(), W, atol=1e-5)
    np.testing.assert_allclose(probe.b - probe.b.mean(), b - b.mean(), atol=1e-5)  # the sum of b is arbitrary


def test_separable_classes_are_told_apart() -> None:
    probe = fit_linear_probe(*clusters(300, 12.0))
    assert probe.accuracy(*clusters(300, 12.0, seed=1)) == 1
    assert probe.chance(torch.arange(300) % 3) == pytest.approx(1 / 3)


def test_noise_is_at_chance() -> None:
    probe = fit_linear_probe(*clusters(3000, 0.0))
    features, labels = clusters(3000, 0.0, seed=1)
    assert probe.accuracy(features, labels) == pytest.approx(1 / 3, abs=4 * (2 / 9 / 3000) ** 0.5)


def test_chance_is_the_training_sets_commonest_class() -> None:
    labels = torch.tensor([0, 1, 1, 1, 2, 0])
    probe = fit_linear_probe(torch.randn(6, 2, generator=torch.Generator().manual_seed(0)), labels)
    assert probe.chance(torch.tensor([0, 0, 1, 2])) == 0.25


def test_twice_gives_the_same_and_leaves_the_random_state() -> None:
    before = torch.random.get_rng_state()
    first, second = (fit_linear_probe(*clusters(90, 1.0)) for _ in range(2))
    assert torch.equal(first.W, second.W)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_gradients_may_be_off() -> None:
    with torch.inference_mode():
        inside = fit_linear_probe(*clusters(90, 1.0))
    torch.testing.assert_close(inside.W, fit_linear_probe(*clusters(90, 1.0)).W)


def test_pixels_of_real_images_tell_classes() -> None:
    data = ImageDataModule(in_memory=False, num_workers=0)

    def features(split: str) -> tuple[Tensor, Tensor]:
        batches = list(data.loader(split, limit=500))
        images = torch.cat([batch["image"] for batch in batches])
        return torch.nn.functional.avg_pool2d(images, 4).flatten(1), torch.cat([batch["label"] for batch in batches])

    probe = fit_linear_probe(*features("train"))
    accuracy = probe.accuracy(*features("test"))
    assert 0.65 < accuracy < 0.9  # a linear classifier of 60,000 whole images reaches 0.84
    assert probe.chance(features("test")[1]) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    ("features", "labels", "l2", "message"),
    [
        (torch.zeros(4, 2), torch.tensor([0, 1, 0]), 1.0, r"shapes \(4, 2\) and \(3,\): make them \(N, D\) and \(N,\)"),
        (torch.zeros(4, 2, 1), torch.tensor([0, 1, 0, 1]), 1.0, r"make them \(N, D\)"),
        (torch.zeros(3, 2), torch.tensor([1, 1, 1]), 1.0, "labels has 1 class: a probe tells at least 2 apart"),
        (torch.tensor([[0.0], [torch.nan]]), torch.tensor([0, 1]), 1.0, "features has values that are not finite"),
        (torch.zeros(2, 1), torch.tensor([0, 1]), 0.0, "l2=0.0: it must be positive"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features: Tensor, labels: Tensor, l2: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_linear_probe(features, labels, l2)
