"""How networks begin and end: from latents, and to images, logits and posteriors."""

from collections.abc import Iterable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from lit_generative.nn.conditions import Condition, embedding_of, labels_of
from lit_generative.nn.embeddings import require_labels
from lit_generative.nn.sizes import Crop, ImageShape
from lit_generative.numerics import at_least_single

__all__ = [
    "LOG_SCALES",
    "ImageHead",
    "LatentStem",
    "PosteriorHead",
    "ProjectionHead",
    "SmoothImageHead",
    "diagonal_normal",
]

LOG_SCALES = (-10.0, 10.0)
"""Bounds that no trained posterior meets; they keep KLs finite."""


class LatentStem(nn.Module):
    """The beginning of a generator: layers from z to as many numbers as ``shape`` has, and the condition's vector."""

    def __init__(self, layers: Iterable[nn.Module], shape: ImageShape, condition: Condition | None) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(*layers)
        self.classes = embedding_of(condition, prod(shape), has_none=False)

    def forward(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Return features (B, *shape) of latents (B, latent_dim) and classes (B,)."""
        features = self.classes(self.layers(z), y).unflatten(1, self.shape)
        return features.contiguous(memory_format=torch.channels_last)


class SmoothImageHead(nn.Module):
    """The end of a generator without a trace of the doubling: bilinear, convolutions over single pixels, and tanh."""

    def __init__(self, width: int, image_shape: ImageShape) -> None:
        super().__init__()
        inner = max(16, width // 2)
        doubling = nn.Upsample(scale_factor=2, mode="bilinear")
        self.doubling = nn.Sequential(nn.Conv2d(width, inner, 1), doubling, nn.LeakyReLU(0.2))
        self.pixels = nn.Sequential(nn.Conv2d(inner, inner, 3, padding=1), nn.LeakyReLU(0.2))
        self.last = nn.Conv2d(inner, image_shape[0], 3, padding=1)
        nn.init.normal_(self.last.weight, std=(9 * inner) ** -0.5)
        self.crop = Crop(image_shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1], float32, of features (B, width, H / 2, W / 2)."""
        return torch.tanh(at_least_single(self.last(self.pixels(self.crop(self.doubling(x))))))


class ImageHead(nn.Module):
    """The end of a generator: a transposed convolution that doubles the size, and tanh."""

    def __init__(self, width: int, image_shape: ImageShape) -> None:
        super().__init__()
        self.doubling = nn.ConvTranspose2d(width, image_shape[0], 4, 2, padding=1)
        nn.init.normal_(self.doubling.weight, std=(4 * width) ** -0.5)  # 2 x 2 of the kernel's values meet in a pixel
        self.crop = Crop(image_shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1], float32, of features (B, width, H / 2, W / 2)."""
        return torch.tanh(at_least_single(self.crop(self.doubling(x))))


class ProjectionHead(nn.Module):
    """The logit w.phi + b + v_y.phi of features phi (projection discriminator, Miyato & Koyama 2018, eq. 3).

    Args:
        features: The size of phi.
        condition: What v_y is of; None leaves the last term out.
    """

    def __init__(self, features: int, condition: Condition | None) -> None:
        super().__init__()
        self.linear = nn.Linear(features, 1)
        num_classes = labels_of(condition)
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, features)
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=features**-0.5)
        self.others = None if num_classes is not None or condition is None else condition.embedding(features)

    def forward(self, phi: Tensor, y: Tensor | None) -> Tensor:
        """Return logits (B,), float32, of features (B, features) and classes (B,)."""
        weight = self.linear.weight  # (1, features)
        if self.embedding is not None:
            weight = weight + self.embedding(require_labels(y))  # (B, features)
        if self.others is not None:
            weight = self.others(weight, y)
        # self.linear(phi) would be bf16 under autocast: too coarse for losses that take differences of large logits
        return (at_least_single(phi) * weight).sum(1) + self.linear.bias


class PosteriorHead(nn.Module):
    """q(z|x, y) of an encoder's features: a vector of the class is added, and a linear layer gives the parameters.

    ``posterior`` makes q of them, and says by ``num_parameters(latent_dim)`` how many there are; None: a diagonal
    normal of means and log-variances.
    """

    def __init__(self, features: int, latent_dim: int, condition: Condition | None, posterior: Any) -> None:
        super().__init__()
        self.classes = embedding_of(condition, features, has_none=False)
        size = 2 * latent_dim if posterior is None else posterior.num_parameters(latent_dim)
        self.linear = nn.Linear(features, size)
        self.posterior = posterior

    def forward(self, features: Tensor, y: Tensor | None) -> Distribution:
        """Return q, batch shape (B,), for features (B, features) and classes (B,)."""
        parameters = self.linear(self.classes(features, y))
        if self.posterior is not None:
            return self.posterior(parameters)
        mean, log_variance = at_least_single(parameters).chunk(2, dim=1)
        return diagonal_normal(mean, 0.5 * log_variance)


def diagonal_normal(mean: Tensor, log_scale: Tensor) -> Independent:
    """Return N(mean, diag(exp(log_scale)^2)) of means and log-scales (B, ...), in float32, batch shape (B,)."""
    scale = at_least_single(log_scale).clamp(*LOG_SCALES).exp()
    return Independent(Normal(at_least_single(mean), scale, validate_args=False), mean.ndim - 1)
