"""Data whose best denoiser, E[x_0 | x_t], is known exactly, so that samplers are tested without a network."""

from collections.abc import Callable

import torch
from torch import Tensor

from lit_generative.diffusion.schedules import Schedule, per_image

Denoise = Callable[[Tensor, Tensor], Tensor]


class GaussianData:
    """N(mean, covariance) over images (B, D, 1, 1), in float64."""

    def __init__(self, mean: list[float], covariance: list[list[float]]) -> None:
        self.mean, self.covariance = torch.tensor(mean).double(), torch.tensor(covariance).double()
        self.variances, self.axes = torch.linalg.eigh(self.covariance)

    def denoiser(self, schedule: Schedule) -> Denoise:
        """Return x_t, t -> mean + alpha S (alpha^2 S + sigma^2)^-1 (x_t - alpha mean), S being the covariance."""

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = (level.double()[:, None] for level in schedule(t))  # (B, 1)
            centred = (x_t.flatten(1).double() - alpha * self.mean) @ self.axes
            shrunk = alpha * self.variances / (alpha**2 * self.variances + sigma**2) * centred
            return (self.mean + shrunk @ self.axes.T).view_as(x_t).to(x_t.dtype)

        return denoise

    def flow(self, x_t: Tensor, alpha: float, sigma: float) -> Tensor:
        """Return where the probability-flow ODE takes x_t: the affine map of N(x_t's moments) to the data."""
        centred = (x_t.flatten(1) - alpha * self.mean) @ self.axes
        scale = (self.variances / (alpha**2 * self.variances + sigma**2)).sqrt()
        return (self.mean + (scale * centred) @ self.axes.T).view_as(x_t)


class MixtureData:
    """Two Gaussians on the line, over images (B, 1, 1, 1), in the type of x_t."""

    def __init__(self, means: tuple[float, float], std: float, share: float) -> None:
        self.means, self.std = torch.tensor(means), std
        self.shares = torch.tensor([share, 1 - share])

    def denoiser(self, schedule: Schedule) -> Denoise:
        """Return x_t, t -> the components' own E[x_0 | x_t], weighted by their posterior probabilities."""

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = (per_image(level, x_t).to(x_t.dtype) for level in schedule(t))
            variance = alpha**2 * self.std**2 + sigma**2
            means = self.means.to(x_t.dtype)
            log_p = self.shares.to(x_t.dtype).log() - (x_t - alpha * means) ** 2 / (2 * variance)  # (B, 1, 1, 2)
            x0 = means + alpha * self.std**2 / variance * (x_t - alpha * means)
            return (log_p.softmax(-1) * x0).sum(-1, keepdim=True)

        return denoise
