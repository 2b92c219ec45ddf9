"""The variational autoencoder."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence

from lit_generative.calls import NetworkCall
from lit_generative.checks import check_count, check_range
from lit_generative.contracts import Batch, as_batch
from lit_generative.core import GenerativeModule
from lit_generative.data import image_data
from lit_generative.description import describe, unwrapped
from lit_generative.interpolation import linear, spherical
from lit_generative.nn.conditions import Condition
from lit_generative.nn.image_conditions import refuse_images
from lit_generative.processes import gather
from lit_generative.sampling import check_images, check_labels, inference, sampling_mode
from lit_generative.vae.active_units import ActiveUnits
from lit_generative.vae.bounds import Draw, estimate_likelihood, in_parts, negative_bound
from lit_generative.vae.likelihoods import Likelihood
from lit_generative.vae.mixture import AggregatePrior, GaussianMixture
from lit_generative.vae.priors import Prior, StandardNormalPrior
from lit_generative.vae.regularisers import BetaRegulariser, LatentBatch, Regulariser

__all__ = ["VAE"]

IMAGES_AT_ONCE = 500  # that are decoded together
IMAGES_TO_LEARN = 20_000  # training images in which the latents should have become of use


class VAE(GenerativeModule):
    """The variational autoencoder of Kingma & Welling 2014, trained on the evidence lower bound, eq. 3.

    log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)), estimated with one z per image.

    To change it, override one hook: :meth:`prior`, :meth:`encode`, :meth:`decode`, :meth:`kl` or :meth:`objective`.

    Args:
        encoder: Maps images (B, C, H, W) and labels to a distribution q(z|x, y) over (B, latent_dim). It is called with
            ``forward(x, y)``, where ``y`` is None for a model without classes.
        decoder: Maps latents (B, latent_dim) and labels to the likelihood's parameters (B, C, H, W):
            ``forward(z, y)``.
        likelihood: Maps these to a distribution over images.
        latent_dim: The size of z. None: the encoder says it, as ``latent_shape`` (c, h, w) of a grid of latents, which
            z has in a row.
        prior_model: p(z). None: N(0, I).
        regulariser: What the latents cost in training in place of the KL. None: the KL.
        aggregate_prior: Fits a mixture to q(z) at each validation, from which samples are drawn instead of from the
            prior; it needs a data module. None: samples are drawn from the prior.
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        optimizer: Makes the optimizer from the parameters. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule, which advances every step.
        condition: What else the model and its networks are told, such as attributes; ``num_classes`` is short for one
            of classes. No image.
    """

    family = "VAE"
    sampler_name: ClassVar[str] = "prior, mean of the likelihood"
    loss_units = (
        dict.fromkeys(("loss", "nelbo", "nll", "kl"), "nats")
        | {"bits_per_dim": "bits/dim", "mutual_information": "nats, biased up"}
        | dict.fromkeys(("total_correlation", "dimension_kl"), "nats, biased")  # see TotalCorrelationRegulariser
    )

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int | None = None,
        prior_model: Prior | None = None,
        regulariser: Regulariser | None = None,
        aggregate_prior: AggregatePrior | None = None,
        num_classes: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler, condition)
        refuse_images(condition, "VAE")
        check_count("latent_dim", latent_dim)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent_shape = _latent_shape(encoder, latent_dim)
        self.latent_dim = latent_dim = prod(self.latent_shape)
        self.prior_model = prior_model or StandardNormalPrior(latent_dim)
        self.regulariser = regulariser or BetaRegulariser(1.0)
        self.aggregate_prior = aggregate_prior
        components = None if aggregate_prior is None else aggregate_prior.components
        self.mixture = None if components is None else GaussianMixture(self.num_classes or 1, components, latent_dim)
        self.active_units = ActiveUnits(latent_dim)
        self._has_warned = False

    # ---------------------------------------------------------------- the hooks

    def prior(self) -> Distribution:
        """Return p(z), event shape (latent_dim,)."""
        return self.prior_model(self.encode)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y), batch shape (B,), event shape (latent_dim,)."""
        return self.encoder(x, y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z, y), batch shape (B,), event shape (C, H, W)."""
        return self.likelihood(self.decoder(z, y))

    def kl(self, q: Distribution, p: Distribution, z: Tensor) -> Tensor:
        """Return KL(q || p), (B,), in nats, of posterior and prior.

        Where torch has no closed form it is estimated by log q(z|x) - log p(z) at ``z`` (B, latent_dim), drawn from q.
        """
        try:
            return kl_divergence(q, p)
        except NotImplementedError:
            return q.log_prob(z) - p.log_prob(z)

    def objective(self, nll: Tensor, kl: Tensor) -> Tensor:
        """Return what is minimised, (B,): the negative bound. A beta-VAE (Higgins et al. 2017) has ``nll + beta * kl``.

        Args:
            nll: -log p(x|z), (B,), in nats.
            kl: KL(q(z|x) || p(z)), (B,), in nats; with a ``regulariser``, its cost instead.
        """
        return nll + kl

    def network_calls(self, x: Tensor, y: Tensor | None = None) -> list[NetworkCall]:
        """Return how encoder and decoder are called, unless :meth:`encode` or :meth:`decode` is another one."""
        calls, n = [], len(x)
        z, decoded = x.new_zeros(n, self.latent_dim), (n, self.likelihood.channels(x.shape[1]), *x.shape[2:])
        if type(self).encode is VAE.encode:
            meaning, of = "z, (B, latent_dim)", {"x": x, "y": y}
            calls.append(NetworkCall("encoder", self.encoder, of, tuple(z.shape), meaning, is_distribution=True))
        if type(self).decode is VAE.decode:
            meaning = "the likelihood's parameters, (B, channels, H, W)"
            calls.append(NetworkCall("decoder", self.decoder, {"z": z, "y": y}, decoded, meaning))
        return calls

    # ---------------------------------------------------------------- learning

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return loss, nll, kl and negative bound (nelbo), (B,), in nats; bits_per_dim for a discrete likelihood.

        Without gradients, as in validation, the regulariser's terms are there, too.
        """
        return self.losses_and_decoded(x, y)[0]

    def losses_and_decoded(self, x: Tensor, y: Tensor | None = None) -> tuple[dict[str, Tensor], Distribution]:
        """Return what :meth:`losses` does, and the p(x|z) that the bound was estimated with."""
        q, p = self.encode(x, y), self.prior()
        z = q.rsample()
        decoded = self.decode(z, y)
        nll, kl = -decoded.log_prob(x), self.kl(q, p, z)
        share = self.share_of_training if self.regulariser.follows_training else None
        latents = LatentBatch(q, z, p, kl, self.images_seen, self._num_training_images, share)
        losses = {"loss": self.objective(nll, self.regulariser(latents))}
        terms = {} if torch.is_grad_enabled() else self.regulariser.terms(latents)
        return losses | negative_bound(self.likelihood, x, nll, {"kl": kl}) | terms, decoded

    @property
    def _num_training_images(self) -> int | None:
        data = getattr(self._trainer, "datamodule", None)
        count = getattr(data, "num_images", None)
        return None if count is None else count("train")

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
        """
        return self.decode(self.draw_latents(n, y), y).mean

    def draw_latents(self, n: int, y: Tensor | None = None) -> Tensor:
        """Return what samples are decoded from, (n, latent_dim): from the mixture once it is fitted, or the prior."""
        mixture = self.fitted_mixture
        return self.prior().sample(torch.Size([n])) if mixture is None else mixture.sample(n, y)

    @property
    def fitted_mixture(self) -> GaussianMixture | None:
        """What latents of samples are drawn from, if it is not the prior."""
        return self.mixture if self.mixture is not None and self.mixture.is_fitted else None

    # ---------------------------------------------------------------- likelihoods

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int = 100, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return two estimates of -log P of 8-bit images ``x`` (B, C, H, W) in [-1, 1], (B,), in nats.

        See :func:`~lit_generative.vae.bounds.estimate_likelihood`. P(x|z) is the probability of the pixels' levels,
        whatever the likelihood, and p(z) is what :meth:`sample` draws from. A likelihood without such probabilities,
        and points of the plane, have none. ``evaluations`` latents an image are decoded, a part at a time.
        """
        if not self.likelihood.has_mass or x.shape[2:] == (1, 1):
            return {}
        check_images(self, x=x)
        y = check_labels(self, len(x), y)
        with inference(self, generator):
            return estimate_likelihood(self._begin_draws, x, y, evaluations)

    def log_likelihood(self, x: Tensor, z: Tensor, y: Tensor | None = None, *, is_mass: bool = False) -> Tensor:
        """Return log p(x|z, y) of images ``x`` (B, C, H, W) at several ``z`` (n, B, latent_dim) each, (n, B), in nats.

        Args:
            x: The images.
            z: Their latents.
            y: Labels (B,) of a conditional model.
            is_mass: Whether p is to be the probability of the images' levels even if it is a density.
        """
        n = len(z)
        p = self.decode(z.flatten(0, 1), None if y is None else y.repeat(n))
        images = x.repeat(n, 1, 1, 1)
        log_p = self.likelihood.log_mass(p, images) if is_mass else p.log_prob(images)
        return log_p.unflatten(0, (n, -1))

    def _begin_draws(self, x: Tensor, y: Tensor | None) -> Draw:
        q, prior = self.encode(x, y), self.prior()

        def draw(n: int) -> tuple[Tensor, Tensor]:
            z = q.sample(torch.Size([n]))  # (n, B, latent_dim)
            log_w = self.log_likelihood(x, z, y, is_mass=True) + self._log_source(prior, z, y) - q.log_prob(z)
            return log_w, log_w

        return draw

    def _log_source(self, prior: Distribution, z: Tensor, y: Tensor | None) -> Tensor:
        """Return the log-density, (n, B), of latents (n, B, latent_dim) under what :meth:`sample` draws from."""
        flat, mixture = z.flatten(0, 1), self.fitted_mixture
        labels = None if y is None else y.repeat(len(z))
        log_p = prior.log_prob(flat) if mixture is None else mixture.log_prob(flat, labels)
        return log_p.unflatten(0, (len(z), -1))

    # ---------------------------------------------------------------- the latent space

    def latent_posterior(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y) as :meth:`encode` does, for what works on the latents of a trained model."""
        return self.encode(x, y)

    def from_latents(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of p(x|z), (B, C, H, W), for latents (B, *latent_shape)."""
        return self.decode(z.flatten(1), y).mean

    def reconstruction_nll(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> Tensor | None:
        """Return -log P(x|z) of 8-bit images at latents (B, *latent_shape), (B,), in nats; None where there is no P."""
        has_mass = self.likelihood.has_mass and x.shape[2:] != (1, 1)
        return -self.log_likelihood(x, z.flatten(1)[None], y, is_mass=True)[0] if has_mass else None

    def posterior_means(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of q(z|x, y), (B, latent_dim), for images ``x`` (B, C, H, W) and labels (B,)."""
        check_images(self, x=x)
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
        path = spherical if is_spherical else linear
        return self._images(path(self.posterior_means(x_0, y), self.posterior_means(x_1, y), steps), y)

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
        check_count("steps", steps)
        check_range("extent", extent, hint="it is in standard deviations, such as 3")
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
        check_count("columns", columns)
        across, down = self._check_dimensions(dimensions)
        quantiles = Normal(0.0, 1.0).icdf((torch.arange(columns) + 0.5) / columns).to(self.device)
        z = torch.zeros(columns, columns, self.latent_dim, device=self.device)
        z[..., across], z[..., down] = quantiles, quantiles[:, None]
        return self._images(z, y)

    def _images(self, z: Tensor, y: Tensor | None) -> Tensor:
        """Return the means of p(x|z) for latents (..., latent_dim); labels (B,) are those of the last batch axis."""
        flat = z.flatten(0, -2)
        y = check_labels(self, len(flat), None if y is None else y.repeat(len(flat) // len(y)))
        with inference(self):
            means = torch.cat([self.decode(*part).mean for part in in_parts(flat, y, IMAGES_AT_ONCE)])
        return means.float().clamp(-1, 1).unflatten(0, z.shape[:-1])

    def _check_dimensions(self, dimensions: Sequence[int]) -> list[int]:
        if not all(0 <= dimension < self.latent_dim for dimension in dimensions):
            raise ValueError(f"dimensions={list(dimensions)}: those of the latents are 0 to {self.latent_dim - 1}")
        return list(dimensions)

    # ---------------------------------------------------------------- during training

    def on_fit_start(self) -> None:
        """Check that there are images to fit the mixture to."""
        super().on_fit_start()
        if self.mixture is not None and self.trainer.datamodule is None:  # type: ignore[attr-defined]
            raise ValueError("aggregate_prior needs a data module: trainer.fit(model, datamodule=ImageDataModule(...))")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val/…``, and collect the posterior's means."""
        super().validation_step(batch, batch_idx)
        self.active_units.update(self.encode(*self.unpack(batch)).mean)

    def on_validation_epoch_end(self) -> None:
        """Log the active units, warn of collapse, and fit the mixture, with the weights that validation uses."""
        super().on_validation_epoch_end()
        active = int(self.active_units.compute())
        self.active_units.reset()
        self.log("health/active_units", float(active), sync_dist=True)
        if self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
            return
        if not active and self.images_seen >= IMAGES_TO_LEARN and not self._has_warned:
            self._has_warned = True
            rank_zero_warn(
                f"posterior collapse: after {self.images_seen:,} images no latent dimension says anything of the "
                "image; a regulariser such as WarmUpRegulariser or FreeBitsRegulariser helps, or a likelihood of "
                "smaller or learned scale"
            )
        if self.aggregate_prior is not None:
            data = image_data(self.trainer.datamodule)  # type: ignore[attr-defined]
            self.fit_mixture(data.loader("train", limit=self.aggregate_prior.num_images))

    def fit_mixture(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Fit the mixture of ``aggregate_prior`` to a draw of q(z|x) for each image of ``batches``.

        Several processes pool theirs; they may have different numbers of images. A class of fewer than two images gets
        the mixture of all.

        Raises:
            ValueError: If there is no ``aggregate_prior``, or there are fewer than two images in all.
        """
        if self.aggregate_prior is None or self.mixture is None:
            raise ValueError("aggregate_prior=None: give the model an AggregatePrior, which says what is to be fitted")
        latents, labels = [], []
        with inference(self, torch.Generator(self.device).manual_seed(self.aggregate_prior.seed)):
            for batch in batches:
                x, y = self.unpack({name: value.to(self.device) for name, value in as_batch(batch).items()})
                latents.append(self.encode(x, y).sample().float())
                one = torch.zeros(len(x), dtype=torch.long, device=x.device)
                labels.append(one if y is None or self.num_classes is None else y)
        z, y = gather(torch.cat(latents)), gather(torch.cat(labels))
        of_classes = [z[y == label] for label in range(self.num_classes or 1)]
        fitted = [self.aggregate_prior.fit(own if len(own) > 1 else z) for own in of_classes]
        self.mixture.keep(fitted, self.images_seen)


def _latent_shape(encoder: nn.Module, latent_dim: int | None) -> tuple[int, int, int]:
    """Return (c, h, w) of the encoder's grid of latents, or a vector's (latent_dim, 1, 1).

    Raises:
        ValueError: If neither says it, or they differ.
    """
    grid = getattr(unwrapped(encoder), "latent_shape", None)
    if grid is None and latent_dim is None:
        raise ValueError("latent_dim=None, and the encoder has no latent_shape: give the size of z, such as 64")
    if grid is not None and latent_dim not in (None, prod(grid)):
        raise ValueError(f"latent_dim={latent_dim}, but the encoder's latents have {grid}: leave latent_dim out")
    return (latent_dim, 1, 1) if grid is None else tuple(grid)  # type: ignore[return-value]
