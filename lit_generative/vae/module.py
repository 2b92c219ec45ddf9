"""The variational autoencoder."""

from collections.abc import Iterable
from math import log, prod
from typing import ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors

from lit_generative.core import Batch
from lit_generative.sampling import check_labels, inference
from lit_generative.vae.latent import ActiveUnits, LatentModel
from lit_generative.vae.likelihoods import Likelihood
from lit_generative.vae.mixture import AggregatePrior, GaussianMixture
from lit_generative.vae.priors import Prior, standard_normal
from lit_generative.vae.regularisers import Latents, Regulariser

__all__ = ["VAE"]

VALUES_AT_ONCE = 2**19  # pixels times channels that are decoded together: 668 images of 28x28, some 200 MB of features

IMAGES_TO_LEARN = 20_000  # training images in which the latents should have become of use


class VAE(LatentModel):
    """The variational autoencoder of Kingma & Welling 2014, trained on the evidence lower bound, eq. 3.

    log p(x) >= E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)), estimated with one z per image.

    To change it, override one hook: :meth:`prior`, :meth:`encode`, :meth:`decode`, :meth:`kl` or :meth:`objective`.

    Args:
        encoder: Maps images (B, C, H, W) and labels to a distribution q(z|x, y) over (B, latent_dim).
        decoder: Maps latents (B, latent_dim) and labels to the likelihood's parameters (B, C, H, W).
        likelihood: Maps these to a distribution over images.
        latent_dim: The size of z.
        prior_model: p(z). None: N(0, I).
        regulariser: What the latents cost in training in place of the KL. None: the KL.
        aggregate_prior: Fits a mixture to q(z) at each validation, from which samples are drawn instead of from the
            prior; it needs a data module. None: samples are drawn from the prior.
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        optimizer: Makes the optimizer from the parameters. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule, which advances every step.
    """

    family = "VAE"
    sampler_name: ClassVar[str] = "prior, mean of the likelihood"
    loss_units = dict.fromkeys(
        ("loss", "nelbo", "nll", "kl", "mutual_information", "total_correlation", "dimension_kl"), "nats"
    ) | {"bits_per_dim": "bits/dim"}

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        prior_model: Prior | None = None,
        regulariser: Regulariser | None = None,
        aggregate_prior: AggregatePrior | None = None,
        num_classes: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent_dim = latent_dim
        self.prior_model = prior_model
        self.regulariser = regulariser
        self.aggregate_prior = aggregate_prior
        components = None if aggregate_prior is None else aggregate_prior.components
        self.mixture = None if components is None else GaussianMixture(num_classes or 1, components, latent_dim)
        self.active_units = ActiveUnits(latent_dim)
        self._has_warned = False

    # ---------------------------------------------------------------- the hooks

    def prior(self) -> Distribution:
        """Return p(z), event shape (latent_dim,): N(0, I) unless there is a ``prior_model``."""
        if self.prior_model is not None:
            return self.prior_model(self.encode)
        return standard_normal(torch.zeros(self.latent_dim, device=self.device))

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y), batch shape (B,), event shape (latent_dim,)."""
        return self.encoder(x, y)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        """Return p(x|z, y), batch shape (B,), event shape (C, H, W)."""
        return self.likelihood(self.decoder(z, y))

    def kl(self, q: Distribution, z: Tensor) -> Tensor:
        """Return KL(q || p(z)), (B,), in nats.

        Where torch has no closed form it is estimated by log q(z|x) - log p(z) at ``z`` (B, latent_dim), drawn from q.
        """
        prior = self.prior()
        try:
            return kl_divergence(q, prior)
        except NotImplementedError:
            return q.log_prob(z) - prior.log_prob(z)

    def objective(self, nll: Tensor, kl: Tensor) -> Tensor:
        """Return what is minimised, (B,): the negative bound. A beta-VAE (Higgins et al. 2017) has ``nll + beta * kl``.

        Args:
            nll: -log p(x|z), (B,), in nats.
            kl: KL(q(z|x) || p(z)), (B,), in nats; with a ``regulariser``, its cost instead.
        """
        return nll + kl

    # ---------------------------------------------------------------- learning

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return loss, nll, kl and negative bound (nelbo), (B,), in nats; bits_per_dim for a discrete likelihood.

        Without gradients, as in validation, the regulariser's parts are there, too.
        """
        q = self.encode(x, y)
        z = q.rsample()
        nll = -self.decode(z, y).log_prob(x)
        kl = self.kl(q, z)
        if self.regulariser is None:
            return {"loss": self.objective(nll, kl)} | self.bound(x, nll, kl)
        latents = Latents(q, z, self.prior(), kl, self.images_seen, self._num_training_images)
        losses = {"loss": self.objective(nll, self.regulariser(latents))} | self.bound(x, nll, kl)
        return losses if torch.is_grad_enabled() else losses | self.regulariser.parts(latents)

    def bound(self, x: Tensor, nll: Tensor, kl: Tensor) -> dict[str, Tensor]:
        """Return what is logged of the evidence lower bound on images ``x``, from -log p(x|z) and KL, both (B,)."""
        nelbo = nll + kl
        bound = {"nelbo": nelbo, "nll": nll, "kl": kl}
        if self.likelihood.is_discrete:
            bound["bits_per_dim"] = nelbo / (log(2) * prod(x.shape[1:]))
        return bound

    @property
    def _num_training_images(self) -> int | None:
        data = getattr(self._trainer, "datamodule", None)
        count = getattr(data, "num_images", None)
        return None if count is None else count("train")

    # ---------------------------------------------------------------- likelihoods

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int = 100, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return two estimates of -log P of 8-bit images ``x`` (B, C, H, W) in [-1, 1], (B,), in nats.

        With w_k = P(x|z_k) p(z_k) / q(z_k|x), z_k from q, k = 1, ..., K, ``bound`` is the mean of -log w_k and
        ``importance_weighted`` is -log of the mean of w_k, which is nearer to -log P(x) and still above it on average
        (Burda et al. 2016, eq. 8). P(x|z) is the probability of the pixels' levels, whatever the likelihood, and p(z)
        is what :meth:`sample` draws from. A likelihood without such probabilities, and points of the plane, have none.

        Args:
            x: The images.
            y: Labels (B,) of a conditional model.
            evaluations: K, the number of latents an image that are decoded; memory does not grow with it.
            generator: The source of all randomness; None: torch's global one.

        Raises:
            ValueError: If ``evaluations`` is below 1.
        """
        if evaluations < 1:
            raise ValueError(f"evaluations={evaluations}: at least one latent per image must be decoded")
        if not self.likelihood.has_mass or x.shape[2:] == (1, 1):
            return {}
        y = check_labels(self, len(x), y)
        size = max(1, VALUES_AT_ONCE // x[0].numel())
        labels = [None] * len(x) if y is None else list(y.split(size))
        with inference(self, generator):
            parts = [self._estimate(*batch, evaluations) for batch in zip(x.split(size), labels, strict=False)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

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

    def _estimate(self, x: Tensor, y: Tensor | None, evaluations: int) -> dict[str, Tensor]:
        """Return the estimates for images that can be decoded at once, by sums over chunks of the latents."""
        q, prior = self.encode(x, y), self.prior()
        chunk = max(1, VALUES_AT_ONCE // x.numel())
        total, log_sum = torch.zeros(len(x), device=x.device), torch.full((len(x),), -torch.inf, device=x.device)
        for begin in range(0, evaluations, chunk):
            z = q.sample(torch.Size([min(chunk, evaluations - begin)]))  # (n, B, latent_dim)
            log_w = self.log_likelihood(x, z, y, is_mass=True) + self._log_source(prior, z, y) - q.log_prob(z)
            total += log_w.sum(0)
            log_sum = torch.logaddexp(log_sum, log_w.logsumexp(0))
        return {"bound": -total / evaluations, "importance_weighted": log(evaluations) - log_sum}

    def _log_source(self, prior: Distribution, z: Tensor, y: Tensor | None) -> Tensor:
        """Return the log-density, (n, B), of latents (n, B, latent_dim) under what :meth:`sample` draws from."""
        flat = z.flatten(0, 1)
        if self.fitted_mixture is None:
            return prior.log_prob(flat).unflatten(0, (len(z), -1))
        return self.fitted_mixture.log_prob(flat, None if y is None else y.repeat(len(z))).unflatten(0, (len(z), -1))

    # ---------------------------------------------------------------- during training

    def on_fit_start(self) -> None:
        """Check that there are images to fit the mixture to."""
        super().on_fit_start()
        if self.mixture is not None and not hasattr(self.trainer.datamodule, "loader"):  # type: ignore[attr-defined]
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
            data = self.trainer.datamodule  # type: ignore[attr-defined]
            self.fit_mixture(data.loader("train", limit=self.aggregate_prior.num_images))

    def fit_mixture(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """Fit the mixture of ``aggregate_prior`` to a draw of q(z|x) for each image of ``batches``.

        Several processes pool theirs; they may have different numbers of images.

        Raises:
            ValueError: If there is no ``aggregate_prior``, or a class has fewer than two images.
        """
        if self.aggregate_prior is None or self.mixture is None:
            raise ValueError("aggregate_prior=None: give the model an AggregatePrior, which says what is to be fitted")
        latents, labels = [], []
        with inference(self, torch.Generator(self.device).manual_seed(self.aggregate_prior.seed)):
            for batch in batches:
                x, y = self.unpack({name: value.to(self.device) for name, value in batch.items()})
                latents.append(self.encode(x, y).sample().float())
                labels.append(torch.zeros(len(x), dtype=torch.long, device=x.device) if y is None else y)
        z, y = _of_all_processes(torch.cat(latents)), _of_all_processes(torch.cat(labels))
        fitted = [self.aggregate_prior.fit(z[y == label]) for label in range(self.num_classes or 1)]
        self.mixture.keep(fitted, self.images_seen)


def _of_all_processes(rows: Tensor) -> Tensor:
    return dim_zero_cat(gather_all_tensors(rows)) if torch.distributed.is_initialized() else rows
