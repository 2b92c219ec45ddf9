"""What a VAE's latents cost in training, in place of the KL divergence of the bound.

Each maps the latents of a batch to a cost per image, (B,), in nats. Schedules go by the training images seen, so that
they mean the same for every batch size and number of processes, or by the share of the training that is over, so that
they mean the same for every length.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described

__all__ = [
    "BetaRegulariser",
    "CapacityRegulariser",
    "CyclicalRegulariser",
    "FreeBitsRegulariser",
    "LatentBatch",
    "Regulariser",
    "WarmUpRegulariser",
]


@dataclass
class LatentBatch:
    """What a regulariser may know of a batch.

    Attributes:
        q: q(z|x), batch shape (B,), event shape (latent_dim,).
        z: One draw from it for each image, (B, latent_dim).
        prior: p(z), event shape (latent_dim,).
        kl: KL(q(z|x) || p(z)) or an estimate of it, (B,), in nats.
        images_seen: Training images seen so far.
        num_images: The size of the training set; None where it is not known.
        share: The share of the training that is over, in [0, 1], if the regulariser asks for it; None: not known.
    """

    q: Distribution
    z: Tensor
    prior: Distribution
    kl: Tensor
    images_seen: int = 0
    num_images: int | None = None
    share: float | None = None


class Regulariser(Described, nn.Module, ABC):
    """A cost of the latents; the model minimises ``objective(nll, cost)`` and still reports the true bound.

    Attributes:
        follows_training: Whether it asks for the share of the training that is over.
    """

    follows_training: bool = False

    @abstractmethod
    def forward(self, latents: LatentBatch) -> Tensor:
        """Return the cost of each image's latents, (B,), in nats."""

    def terms(self, latents: LatentBatch) -> dict[str, Tensor]:
        """Return what is worth logging beside the KL, by name, each (B,); nothing by default."""
        return {}


class Span:
    """A time from the beginning of the training on: so many training images, or a share of the whole training.

    Args:
        images: How many; None: a share is given.
        share: In (0, 1]; None: images are given.

    Raises:
        ValueError: If none or both are given, or one is out of its range.
    """

    def __init__(self, images: int | None, share: float | None) -> None:
        check_range("images", images, above=0)
        check_range("share", share, above=0, at_most=1, hint="it is a share of the training, such as 0.2")
        if (images is None) == (share is None):
            raise ValueError(f"images={images} and share={share}: give one of them, images or a share of the training")
        self.images, self.share = images, share

    def over(self, latents: LatentBatch) -> float:
        """Return how much of it is over, 0 at the beginning, at its end 1, and more behind it.

        Raises:
            ValueError: If it is a share of a training whose length is not known.
        """
        if self.images is not None:
            return latents.images_seen / self.images
        if latents.share is None:
            raise ValueError(
                f"share={self.share}: the length of the training is not known; give images instead, or the trainer a "
                "length"
            )
        return latents.share / (self.share or 1)


class WeightedKLRegulariser(Regulariser):
    """A multiple of the KL that may go by the training."""

    @abstractmethod
    def weight(self, latents: LatentBatch) -> float:
        """Return the multiple at the time of a batch."""

    def forward(self, latents: LatentBatch) -> Tensor:
        """Return the weighted KL, (B,)."""
        return self.weight(latents) * latents.kl


class BetaRegulariser(WeightedKLRegulariser):
    """beta KL (beta-VAE, Higgins et al. 2017, eq. 4).

    Args:
        beta: Above 1 the latents say less and are more alike the prior; below 1 they say more.
    """

    def __init__(self, beta: float) -> None:
        super().__init__()
        check_range("beta", beta, above=0)
        self.beta = beta

    def weight(self, latents: LatentBatch) -> float:
        """Return beta, from the first image on."""
        return self.beta


class WarmUpRegulariser(WeightedKLRegulariser):
    """KL weighted from 0 up to ``beta``, linearly (KL annealing, Bowman et al. 2016, section 3.1).

    The decoder learns to use the latents before they cost anything, which prevents posterior collapse.

    Args:
        images: Training images until the whole weight is reached.
        beta: The weight from then on.
        share: Instead of images, the share of the training until then.
    """

    def __init__(self, images: int | None = None, beta: float = 1.0, share: float | None = None) -> None:
        super().__init__()
        check_range("beta", beta, above=0)
        self.span, self.beta = Span(images, share), beta
        self.follows_training = share is not None

    def weight(self, latents: LatentBatch) -> float:
        """Return beta min(1, images_seen / images)."""
        return self.beta * min(1.0, self.span.over(latents))


class CyclicalRegulariser(WeightedKLRegulariser):
    """KL whose weight rises from 0 to 1 several times (Fu et al. 2019, eq. 6 and 7), and then stays 1.

    Each cycle starts from latents that were already useful at the end of the one before.

    Args:
        images: Training images of all cycles together.
        cycles: How often the weight starts anew from 0.
        ramp: The share of a cycle in which the weight rises; in the rest it is 1.
        share: Instead of images, the share of the training that all cycles take together.
    """

    def __init__(
        self, images: int | None = None, cycles: int = 4, ramp: float = 0.5, share: float | None = None
    ) -> None:
        super().__init__()
        check_count("cycles", cycles)
        check_range("ramp", ramp, above=0, at_most=1)
        self.span, self.cycles, self.ramp = Span(images, share), cycles, ramp
        self.follows_training = share is not None

    def weight(self, latents: LatentBatch) -> float:
        """Return min(1, tau / ramp), tau in [0, 1) being the place in the cycle; after the last one 1."""
        over = self.span.over(latents)
        return 1.0 if over >= 1 else min(1.0, over * self.cycles % 1 / self.ramp)


class FreeBitsRegulariser(Regulariser):
    """sum_j max(nats, E_x[KL_j]): the first nats of each latent dimension are free (Kingma et al. 2016, eq. 15).

    The mean is over the batch, so that the cost is the same number for each of its images. A dimension below the limit
    has no gradient and so no reason to collapse.

    Args:
        nats: Free nats per dimension; Kingma et al. use 0.01 to 2.
    """

    def __init__(self, nats: float) -> None:
        super().__init__()
        check_range("nats", nats, above=0)
        self.nats = nats

    def forward(self, latents: LatentBatch) -> Tensor:
        """Return the cost, (B,).

        Raises:
            ValueError: If posterior and prior are not both independent normals: there is no KL of one dimension.
        """
        q, p = latents.q, latents.prior
        if not (is_diagonal(q) and is_diagonal(p)):
            raise ValueError(
                f"FreeBitsRegulariser(nats={self.nats}) needs independent normals as posterior and prior, for the KL "
                "of each dimension; leave posterior and prior_model out, or take CapacityRegulariser or "
                "WarmUpRegulariser as regulariser"
            )
        kl = kl_divergence(q.base_dist, p.base_dist)  # type: ignore[attr-defined]  # (B, latent_dim)
        return kl.mean(0).clamp(min=self.nats).sum().expand(len(kl))


class CapacityRegulariser(Regulariser):
    """gamma |KL - C|, with C rising from 0 (Burgess et al. 2018, eq. 8).

    The latents are made to carry a given amount of information, which grows: the most useful factors come first. As
    printed, the KL is an image's, so that each is to carry as much. As used, for instance by the ``AnnealedVAE`` of
    ``disentanglement_lib``, it is the mean of the batch, so that a detailed image may carry more than a plain one.

    Args:
        gamma: The weight; Burgess et al. use 1000.
        nats: C at the end; theirs is 25.
        images: Training images in which C rises linearly.
        of_mean: Whether KL is the mean of the batch. On several processes it is that of each one's part.
        share: Instead of images, the share of the training in which it does.
    """

    def __init__(
        self,
        gamma: float,
        nats: float,
        images: int | None = None,
        of_mean: bool = False,
        share: float | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"gamma": gamma, "nats": nats}.items():
            check_range(name, value, above=0)
        self.gamma, self.nats, self.span, self.of_mean = gamma, nats, Span(images, share), of_mean
        self.follows_training = share is not None

    def capacity(self, latents: LatentBatch) -> float:
        """Return C at the time of a batch, in nats."""
        return self.nats * min(1.0, self.span.over(latents))

    def forward(self, latents: LatentBatch) -> Tensor:
        """Return gamma |KL - C|, (B,); the same for each image if it is of the mean."""
        kl = latents.kl.mean().expand_as(latents.kl) if self.of_mean else latents.kl
        return self.gamma * (kl - self.capacity(latents)).abs()


def is_diagonal(distribution: Distribution) -> bool:
    """Whether ``distribution`` is of independent normals."""
    return isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal)
