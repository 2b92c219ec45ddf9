"""The plane as a feature space, for two-dimensional data of known modes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_generative.evaluation.extractors import Extractor

__all__ = ["PointsExtractor"]

_NEAR = 3  # standard deviations


class _Modes(nn.Module):
    """The identity on points (B, 2, 1, 1), beside what is known of their distribution."""

    centres: Tensor
    scale: Tensor

    def __init__(self, centres: Tensor, scale: float) -> None:
        super().__init__()
        self.register_buffer("centres", centres.double())
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.double))

    def forward(self, points: Tensor) -> Tensor:
        return points.reshape(len(points), 2)


class PointsExtractor(Extractor):
    """The points themselves as features (B, 2); their classes are the modes, by the nearest centre.

    Two metrics of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761, section 4) are added. A sample is of high quality
    if it is within three standard deviations of the nearest centre; ``high_quality`` is the share of such samples, for
    the true distribution 1 - exp(-9/2) = 0.989. ``modes`` is the number of centres that are the nearest to at least
    one sample of high quality.

    Args:
        centres: The means of the Gaussians, (K, 2).
        scale: The standard deviation of each coordinate.
        class_names: What the modes are called.
    """

    network: _Modes

    def __init__(self, centres: Tensor, scale: float, class_names: Sequence[str]) -> None:
        super().__init__(_Modes(centres, scale), "points", num_features=2, class_names=class_names)

    def _distances(self, features: Tensor) -> Tensor:
        return torch.cdist(features.double(), self.network.centres)  # (B, K)

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, K) of features (B, 2): those of the mixture, log p(mode | point) up to a constant."""
        return -(self._distances(features) / self.network.scale).square() / 2

    def metrics(self, features: Tensor) -> dict[str, Tensor]:
        """``modes`` and ``high_quality`` of the samples with the features (M, 2), float64 scalars."""
        distance, mode = self._distances(features).min(dim=1)
        is_good = distance <= _NEAR * self.network.scale
        return {"modes": (mode[is_good].bincount() > 0).sum().double(), "high_quality": is_good.double().mean()}
