"""Data whose best denoiser, E[x_0 | x_t], is known exactly, so that samplers are tested without a network."""

import math

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from lit_generative.diffusion import Denoiser, Estimate, Schedule
from lit_generative.diffusion.schedules import per_image


class GaussianData:
    """N(mean, covariance) over images (B, D, 1, 1), in float64."""

    def __init__(self, mean: list[float], covariance: list[list[float]]) -> None:
        self.mean, self.covariance = torch.tensor(mean).double(), torch.tensor(covariance).double()
        self.variances, self.axes = torch.linalg.eigh(self.covariance)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """Return x_t, t -> mean + alpha S (alpha^2 S + sigma^2)^-1 (x_t - alpha mean), S being the covariance."""

        def denoise(x_t: Tensor, t: Tensor) -> Estimate:
            alpha, sigma = (level.double()[:, None] for level in schedule(t))  # (B, 1)
            centred = (x_t.flatten(1).double() - alpha * self.mean) @ self.axes
            shrunk = alpha * self.variances / (alpha**2 * self.variances + sigma**2) * centred
            return Estimate((self.mean + shrunk @ self.axes.T).view_as(x_t).to(x_t.dtype))

        return denoise

    def log_prob(self, x: Tensor, noise: float = 0.0) -> Tensor:
        """Return the log density, (B,), of data with noise of that standard deviation added, at x (B, D, 1, 1)."""
        covariance = self.covariance + noise**2 * torch.eye(len(self.mean)).double()
        return MultivariateNormal(self.mean, covariance).log_prob(x.flatten(1).double())

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

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """Return x_t, t -> the components' own E[x_0 | x_t], weighted by their posterior probabilities."""

        def denoise(x_t: Tensor, t: Tensor) -> Estimate:
            alpha, sigma = (per_image(level, x_t).to(x_t.dtype) for level in schedule(t))
            variance = alpha**2 * self.std**2 + sigma**2
            means = self.means.to(x_t.dtype)
            log_p = self.shares.to(x_t.dtype).log() - (x_t - alpha * means) ** 2 / (2 * variance)  # (B, 1, 1, 2)
            x0 = means + alpha * self.std**2 / variance * (x_t - alpha * means)
            return Estimate((log_p.softmax(-1) * x0).sum(-1, keepdim=True))

        return denoise


class PlaneMixture:
    """Isotropic Gaussians of equal shares in the plane, over images (B, 2, 1, 1), in float64."""

    def __init__(self, means: list[list[float]], std: float) -> None:
        self.means, self.std = torch.tensor(means).double(), std  # (K, 2)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """Return x_t, t -> the components' own E[x_0 | x_t], weighted by their posterior probabilities."""

        def denoise(x_t: Tensor, t: Tensor) -> Estimate:
            alpha, sigma = (level.double()[:, None, None] for level in schedule(t))  # (B, 1, 1)
            variance = alpha**2 * self.std**2 + sigma**2
            offset = x_t.flatten(1)[:, None] - alpha * self.means  # (B, K, 2)
            shares = (-offset.square().sum(2, keepdim=True) / (2 * variance)).softmax(1)
            return Estimate((shares * (self.means + alpha * self.std**2 / variance * offset)).sum(1).view_as(x_t))

        return denoise

    def log_prob(self, x: Tensor, noise: float = 0.0) -> Tensor:
        """Return the log density, (B,), of data with noise of that standard deviation added, at x (B, 2, 1, 1)."""
        variance = self.std**2 + noise**2
        exponents = -(x.flatten(1)[:, None] - self.means).square().sum(2) / (2 * variance)
        return exponents.logsumexp(1) - math.log(len(self.means) * 2 * math.pi * variance)
