"""What can be done with an encoder and a decoder: sampling, and looks at the latent space."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal
from torchmetrics import Metric

from lit_generative.core import GenerativeModule
from lit_generative.description import describe
from lit_generative.interpolation import linear, spherical
from lit_generative.sampling import check_labels, inference, sampling_mode
from lit_generative.vae.mixture import AggregatePrior, GaussianMixture

__all__ = ["ActiveUnits", "LatentModel"]

IMAGES_AT_ONCE = 500
"""That are decoded together."""


class ActiveUnits(Metric):
    """The number of latent dimensions whose posterior mean varies over images: Var_x(E_q[z_j]) > 0.01.

    That is Burda et al.'s (2016, section 5.2). The other dimensions are the prior's, whatever the image.

    Args:
        latent_dim: The size of z.
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(latent_dim), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros(latent_dim), dist_reduce_fx="sum")

    def update(self, means: Tensor) -> None:
        """Take the means of q(z|x) of a batch, (B, latent_dim)."""
        means = means.float()
        # not in place: after `validate` the states are inference tensors, which `fit` could not add to
        self.count = self.count + len(means)
        self.total = self.total + means.sum(0)
        self.squares = self.squares + means.square().sum(0)

    def compute(self) -> Tensor:
        """Return the number, an integer scalar."""
        variances = self.squares / self.count - (self.total / self.count).square()
        return (variances > 0.01).sum()


class LatentModel(GenerativeModule):
    """A generative model with latents; a subclass has the attributes below and the three hooks.

    Attributes:
        latent_dim: The size of z.
        aggregate_prior: How to fit a mixture to q(z) to sample from; None: samples come from the prior.
        mixture: That mixture; None as well.
    """

    latent_dim: int
    aggregate_prior: AggregatePrior | None
    mixture: GaussianMixture | None

    def prior(self) -> Distribution:
        """Return p(z), event shape (latent_dim,)."""
        raise TypeError(f"{type(self).__name__} does not implement prior()")

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y), batch shape (B,), event shape (latent_dim,)."""
        raise TypeError(f"{type(self).__name__} does not implement encode(x, y)")

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z, y), batch shape (B,), event shape (C, H, W)."""
        raise TypeError(f"{type(self).__name__} does not implement decode(z, y)")

    # ---------------------------------------------------------------- sampling

    @property
    def sampling(self) -> dict[str, Any]:
        """Where the latents come from, for the protocol stamp of a number."""
        if self.fitted_mixture is None:
            return super().sampling
        fitted = {"aggregate_prior": describe(self.aggregate_prior), "fitted_at": int(self.fitted_mixture.fitted_at)}
        return super().sampling | {"sampler": "aggregate posterior, mean of the likelihood"} | fitted

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw z and return the means of p(x|z), (n, C, H, W) in [-1, 1].

        z is drawn from the prior; with ``aggregate_prior``, once it is fitted, from the mixture.

        Args:
            n: How many.
            y: Labels (n,) of a conditional model.
            generator: The source of all randomness; None: torch's global one.
        """
        mixture = self.fitted_mixture
        z = self.prior().sample(torch.Size([n])) if mixture is None else mixture.sample(n, y)
        return self.decode(z, y).mean

    @property
    def fitted_mixture(self) -> GaussianMixture | None:
        """What latents of samples are drawn from, if it is not the prior."""
        return self.mixture if self.mixture is not None and self.mixture.is_fitted else None

    # ---------------------------------------------------------------- the latent space

    def posterior_means(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of q(z|x, y), (B, latent_dim), for images ``x`` (B, C, H, W) and labels (B,)."""
        y = check_labels(self, len(x), y)
        with inference(self):
            return self.encode(x.to(self.device), y).mean.float()

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of p(x|z) at the posterior's mean z, (B, C, H, W) in [-1, 1], for images ``x``."""
        return self._images(self.posterior_means(x, y), y)

    def interpolate(
        self, x_0: Tensor, x_1: Tensor, steps: int = 8, y: Tensor | None = None, *, is_spherical: bool = False
    ) -> Tensor:
        """Return images on the way from ``x_0`` to ``x_1``, (steps, B, C, H, W) in [-1, 1], reconstructions included.

        Args:
            x_0: Images (B, C, H, W) to begin with.
            x_1: As many to end with.
            steps: Images of each path.
            y: Labels (B,) of a conditional model, those of both ends.
            is_spherical: Whether latents go along a great arc (:func:`~lit_generative.interpolation.spherical`),
                which is as far from the origin as its ends; a straight line by default.

        Raises:
            ValueError: If the ends are not as many, or ``steps`` is below 2.
        """
        if x_0.shape != x_1.shape:
            raise ValueError(f"x_1 has shape {tuple(x_1.shape)}; it must be that of x_0, {tuple(x_0.shape)}")
        if steps < 2:
            raise ValueError(f"steps={steps}: a path has at least its 2 ends")
        path = spherical if is_spherical else linear
        z = path(self.posterior_means(x_0, y), self.posterior_means(x_1, y), steps)
        return self._images(z, y)

    def traverse(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        dimensions: Sequence[int] | None = None,
        extent: float = 3.0,
        steps: int = 8,
    ) -> Tensor:
        """Return images (D, steps, C, H, W) in [-1, 1], row d with one latent dimension of ``x`` moved, the rest kept.

        Args:
            x: One image, (1, C, H, W).
            y: Its label (1,), of a conditional model.
            dimensions: Which D dimensions; None: all.
            extent: The dimension goes from -extent to extent, in standard deviations of N(0, I).
            steps: Images of a row.

        Raises:
            ValueError: If there is not one image, or there is no such dimension.
        """
        if len(x) != 1:
            raise ValueError(f"x has {len(x)} images: traverse moves the latents of one, for instance x[:1]")
        chosen = self._check_dimensions(range(self.latent_dim) if dimensions is None else dimensions)
        z = self.posterior_means(x, y).repeat(len(chosen), steps, 1)  # (D, steps, latent_dim)
        for row, dimension in zip(z, chosen, strict=True):
            row[:, dimension] = torch.linspace(-extent, extent, steps)
        return self._images(z, y)

    def latent_grid(
        self, columns: int = 16, y: Tensor | None = None, *, dimensions: tuple[int, int] = (0, 1)
    ) -> Tensor:
        """Return the images of a plane of the latent space, (columns, columns, C, H, W) in [-1, 1].

        The latents are N(0, I)'s quantiles at (i + 1/2) / columns, so that each image stands for as much probability
        (Kingma & Welling 2014, figure 4); all other dimensions are 0.

        Args:
            columns: Columns, and rows.
            y: The label (1,) of all, of a conditional model.
            dimensions: The latent dimensions that grow to the right and downwards.

        Raises:
            ValueError: If ``columns`` is below 1, or there are no such two dimensions.
        """
        if columns < 1:
            raise ValueError(f"columns={columns}: the grid must have at least 1")
        across, down = self._check_dimensions(dimensions)
        quantiles = Normal(0.0, 1.0).icdf((torch.arange(columns) + 0.5) / columns).to(self.device)
        z = torch.zeros(columns, columns, self.latent_dim, device=self.device)
        z[..., across], z[..., down] = quantiles, quantiles[:, None]
        return self._images(z, y)

    def _images(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Return the means of p(x|z) for latents (..., latent_dim); labels (B,) are those of the last batch axis."""
        flat = z.flatten(0, -2)
        if y is not None:
            y = y.repeat(len(flat) // len(y))
        y = check_labels(self, len(flat), y)
        with inference(self):
            labels = [None] * len(flat) if y is None else list(y.split(IMAGES_AT_ONCE))
            parts = zip(flat.split(IMAGES_AT_ONCE), labels, strict=False)
            means = torch.cat([self.decode(part, label).mean for part, label in parts])
        return means.float().clamp(-1, 1).unflatten(0, z.shape[:-1])

    def _check_dimensions(self, dimensions: Sequence[int]) -> list[int]:
        if not all(0 <= dimension < self.latent_dim for dimension in dimensions):
            raise ValueError(f"dimensions={list(dimensions)}: those of the latents are 0 to {self.latent_dim - 1}")
        return list(dimensions)
