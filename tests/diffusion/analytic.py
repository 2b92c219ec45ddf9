"""Data whose best denoiser, E[x_0 | x_t], is known exactly, so that samplers are tested without a network."""

import copy
import functools
import math
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from lit_generative import ImageDataModule
from lit_generative.diffusion import Denoiser, Estimate, Sampler, SamplingState, Schedule
from lit_generative.diffusion.schedules import per_image
from lit_generative.eight_bit import BIN


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


class ImageGaussian:
    """A Gaussian with the mean and the covariance of the embedded training images, in the eigenbasis of the latter.

    Its images are (B, C, 1, 1), their coordinates there. Each coordinate's best denoiser is affine and knows nothing of
    the others, so that a sampler's whole distribution is had from a few runs (:meth:`sampled`), without sampling.
    Variances below that of rounding to 256 levels are raised to it, as that much is in any image.
    """

    def __init__(self) -> None:
        data = ImageDataModule(batch_size=1000)
        data.prepare_data()
        data.setup("fit")
        images = torch.cat([batch["image"] for batch in data.train_dataloader()]).flatten(1).double()
        variances, axes = torch.linalg.eigh(images.T.cov())
        self.mean, self.variances = images.mean(0) @ axes, variances.clamp(min=BIN**2 / 12)

    def denoiser(self, schedule: Schedule) -> Denoiser:
        """Return x_t, t -> E[x_0 | x_t]."""

        def denoise(x_t: Tensor, t: Tensor) -> Estimate:
            alpha, sigma = (level.double()[:, None] for level in schedule(t))
            shrink = alpha * self.variances / (alpha**2 * self.variances + sigma**2)
            return Estimate((self.mean + shrink * (x_t.flatten(1) - alpha * self.mean)).view_as(x_t))

        return denoise

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw images, (n, C, 1, 1)."""
        noise = torch.randn(n, len(self.mean), generator=generator, dtype=torch.float64)
        return (self.mean + self.variances.sqrt() * noise)[..., None, None]

    def sampled(self, sampler: Sampler, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of a sampler's images, (C,) each, exactly.

        Image 0 sees no noise; image 1 begins from one standard deviation in every coordinate; image 2 + k sees a 1 as
        the k-th noise that is drawn.
        """
        first, *rest = sampler.levels(schedule)
        draws = len(rest) if sampler.draws_noise or sampler.spacing.puts_noise_back else 0
        x_T = torch.zeros(2 + draws, len(self.mean), 1, 1, dtype=torch.float64)
        x_T[1] = first.sigma
        counter = count(2)

        def unit(x: Tensor) -> Tensor:
            noise = torch.zeros_like(x)
            noise[next(counter)] = 1
            return noise

        begin = sampler.begin

        def begin_with_units(*arguments: Any) -> SamplingState:
            state = begin(*arguments)
            state.noise = unit
            return state

        sampler = copy.copy(sampler)
        sampler.begin = begin_with_units
        x = sampler.sample(self.denoiser(schedule), x_T, schedule).flatten(1)
        return x[0], (x[1:] - x[0]).square().sum(0).sqrt()

    def frechet(self, sampler: Sampler, schedule: Schedule) -> tuple[float, float]:
        """Return the two parts of a sampler's Fréchet distance: |mean error|^2, and that of the covariances."""
        mean, std = self.sampled(sampler, schedule)
        by_mean, by_covariance = (mean - self.mean).square(), (std - self.variances.sqrt()).square()
        return by_mean.sum().item(), by_covariance.sum().item()


@functools.cache
def image_gaussian() -> ImageGaussian:
    """Return the one for all tests of a process; to find it takes seconds."""
    return ImageGaussian()
