"""The linear probe: how much of the classes can be read off features by a linear classifier."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_generative.checks import check_range

__all__ = ["LinearProbe", "fit_linear_probe"]


@dataclass(frozen=True)
class LinearProbe:
    """A multinomial logistic regression, p(k | f) proportional to exp((W (f - mean) / std + b)_k).

    Attributes:
        W: The weights, (K, D).
        b: The intercepts, (K,).
        mean: Of the features it was fitted to, (D,).
        std: Their standard deviation, (D,), with 1 where they do not vary.
        most_common: The label that most of those had.
    """

    W: Tensor
    b: Tensor
    mean: Tensor
    std: Tensor
    most_common: int

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits (N, K) of features (N, D)."""
        return F.linear((features.to(self.mean) - self.mean) / self.std, self.W, self.b)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Return the share of features (N, D) whose label (N,) has the largest logit."""
        return (self.logits(features).argmax(1) == labels.to(self.b.device)).double().mean().item()

    def chance(self, labels: Tensor) -> float:
        """Return the accuracy on labels (N,) of always saying the commonest: what features that tell nothing allow."""
        return (labels == self.most_common).double().mean().item()


def fit_linear_probe(features: Tensor, labels: Tensor, l2: float = 1.0, max_iterations: int = 500) -> LinearProbe:
    """Fit a linear probe, by L-BFGS from zero: the problem is convex, so that there is one answer and no seed.

    With features standardised to f, it minimises sum_i -log p(y_i | f_i) + l2 / 2 |W|^2 (Bishop 2006, "Pattern
    recognition and machine learning", eq. 4.108 with a normal prior on W, none on b).

    Args:
        features: (N, D).
        labels: (N,), int64, from 0 on.
        l2: The strength of the penalty; it is relative to one image.
        max_iterations: Of L-BFGS, which as a rule needs fewer.

    Raises:
        ValueError: If there are not as many labels as features, fewer than two classes, features that are not finite,
            or ``l2`` is not positive.
    """
    _check(features, labels, l2)
    with torch.inference_mode(False), torch.enable_grad():
        f, labels = features.detach().to(torch.float64, copy=True), labels.to(features.device, copy=True)
        std, mean = torch.std_mean(f, dim=0, correction=0)
        std = std.where(std > 0, 1)
        W, b = _minimised((f - mean) / std, labels, l2, max_iterations)
    return LinearProbe(W, b, mean, std, int(labels.bincount().argmax()))


def _minimised(f: Tensor, labels: Tensor, l2: float, max_iterations: int) -> tuple[Tensor, Tensor]:
    W = f.new_zeros(int(labels.max()) + 1, f.shape[1], requires_grad=True)
    b = f.new_zeros(len(W), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [W, b],
        max_iter=max_iterations,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(f, W, b), labels) + l2 / (2 * len(f)) * W.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return W.detach(), b.detach()


def _check(features: Tensor, labels: Tensor, l2: float) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1]:
        shapes = tuple(features.shape), tuple(labels.shape)
        raise ValueError(f"features and labels have shapes {shapes[0]} and {shapes[1]}: make them (N, D) and (N,)")
    if len(labels.unique()) < 2:
        raise ValueError(f"labels has {len(labels.unique())} class: a probe tells at least 2 apart")
    if not features.isfinite().all():
        raise ValueError("features has values that are not finite: leave those rows out")
    check_range("l2", l2, above=0, hint="1 is usual, and without it separable classes have no finite answer")
