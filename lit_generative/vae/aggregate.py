"""Regularisers of the aggregate posterior q(z) = E_x[q(z|x)], which they estimate from the batch."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.vae.regularisers import LatentBatch, Regulariser, is_diagonal

__all__ = [
    "GaussianKernel",
    "InverseMultiquadricKernel",
    "Kernel",
    "MMDRegulariser",
    "TotalCorrelationRegulariser",
    "stratified_log_shares",
]


class TotalCorrelationRegulariser(Regulariser):
    """alpha I(x; z) + beta TC(z) + gamma sum_j KL(q(z_j) || p(z_j)) (beta-TC-VAE, Chen et al. 2018, eq. 2 and 4).

    With all three 1 this is the KL. A larger ``beta`` makes the latents independent of each other without making them
    say less of the image. q(z), which is a mixture over the training set, is estimated from the batch by
    minibatch-stratified sampling (their appendix C.2).

    The terms are biased, and so is what is logged of them: the estimate of q(z) has no bias, but its logarithm is too
    low on average. So the mutual information is too high; it is log(num_images), the most there can be, as soon as the
    posteriors of a batch hardly overlap. The total correlation, a difference of two such logarithms, may err to either
    side and be negative. All depend on the batch's size; compare them between runs of one size alone. Only their sum,
    the KL, has no bias.

    Args:
        alpha: The weight of the index-code mutual information.
        beta: The weight of the total correlation; Chen et al. use up to 10.
        gamma: The weight of the dimension-wise KL.
        num_images: The size of the training set. None: that of the trainer's data.
    """

    def __init__(
        self, alpha: float = 1.0, beta: float = 6.0, gamma: float = 1.0, num_images: int | None = None
    ) -> None:
        super().__init__()
        check_count("num_images", num_images)
        for name, weight in {"alpha": alpha, "beta": beta, "gamma": gamma}.items():
            check_range(name, weight, at_least=0, hint="it is a weight; 1 is that of the bound")
        self.alpha, self.beta, self.gamma, self.num_images = alpha, beta, gamma, num_images

    def forward(self, latents: LatentBatch) -> Tensor:
        """Return the weighted sum, (B,)."""
        mutual_information, total_correlation, dimension_kl = self.terms(latents).values()
        return self.alpha * mutual_information + self.beta * total_correlation + self.gamma * dimension_kl

    def terms(self, latents: LatentBatch) -> dict[str, Tensor]:
        """Return the three terms at z, each (B,); their sum is log q(z|x) - log p(z), whose mean is the KL.

        Raises:
            ValueError: If the posterior is not normal, or the size of the training set is not known.
        """
        num_images = self.num_images or latents.num_images
        if num_images is None:
            raise ValueError(
                "TotalCorrelationRegulariser(num_images=None): the size of the training set is unknown; pass it"
            )
        q, z = latents.q, latents.z
        if not (is_diagonal(q) or isinstance(q, MultivariateNormal)):
            raise ValueError(
                "TotalCorrelationRegulariser needs a normal posterior, for its marginals; leave posterior out"
            )
        log_shares = stratified_log_shares(len(z), num_images).to(z)
        log_qz_given_x = q.log_prob(z)
        log_qz = torch.logsumexp(q.log_prob(z[:, None]) + log_shares, 1)  # [i, j]: z_i under the posterior of x_j
        marginals = Normal(q.mean, q.stddev, validate_args=False).log_prob(z[:, None])  # (B, B, latent_dim)
        log_product = torch.logsumexp(marginals + log_shares[..., None], 1).sum(1)  # log prod_j q(z_j)
        return {
            "mutual_information": log_qz_given_x - log_qz,
            "total_correlation": log_qz - log_product,
            "dimension_kl": log_product - latents.prior.log_prob(z),
        }


class Kernel(Described, ABC):
    """A positive definite function of the distance of two latents, 1 at distance 0.

    Its width goes with the latent dimension, since two draws of N(0, I) are at a squared distance of about
    2 latent_dim.
    """

    @abstractmethod
    def __call__(self, squared_distance: Tensor, latent_dim: int) -> Tensor:
        """Return k of squared distances of any shape."""


class GaussianKernel(Kernel):
    """exp(-|z - z'|^2 / (2 h^2)) with h^2 = scale^2 latent_dim.

    Args:
        scale: The width, relative to the standard deviation of N(0, I).
    """

    def __init__(self, scale: float = 1.0) -> None:
        check_range("scale", scale, above=0)
        self.scale = scale

    def __call__(self, squared_distance: Tensor, latent_dim: int) -> Tensor:
        """Return k of squared distances of any shape."""
        return torch.exp(-squared_distance / (2 * self.scale**2 * latent_dim))


class InverseMultiquadricKernel(Kernel):
    """The mean over scales s of C / (C + |z - z'|^2), C = 2 s latent_dim (Tolstikhin et al. 2018, section 4).

    Its heavy tails give gradients to latents far from all others, to which a Gaussian kernel is blind.

    Args:
        scales: The widths, s.
    """

    def __init__(self, scales: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)) -> None:
        if not isinstance(scales, Sequence) or not scales:
            raise ValueError(f"scales={scales}: it must be a list of at least one width")
        for scale in scales:
            check_range("scales", scale, above=0)
        self.scales = tuple(scales)

    def __call__(self, squared_distance: Tensor, latent_dim: int) -> Tensor:
        """Return k of squared distances of any shape."""
        widths = [2 * s * latent_dim for s in self.scales]
        return torch.stack([c / (c + squared_distance) for c in widths]).mean(0)


class MMDRegulariser(Regulariser):
    """(1 - alpha) KL + (alpha + lambda - 1) MMD^2(q(z), p(z)) (InfoVAE, Zhao et al. 2019, eq. 6).

    The maximum mean discrepancy pulls all posteriors together, not each one, to the prior: the latents may say much of
    an image and yet be filled as the prior is.

    Args:
        weight: alpha + lambda - 1, in nats. A squared MMD is below 2, the images' nats are hundreds: take 100 to 1000.
        kl_weight: 1 - alpha. With 0 it is a Wasserstein autoencoder (Tolstikhin et al. 2018), whose posteriors may
            lose their variance.
        kernel: None: :class:`InverseMultiquadricKernel`.
    """

    def __init__(self, weight: float, kl_weight: float = 0.0, kernel: Kernel | None = None) -> None:
        super().__init__()
        check_range("weight", weight, above=0)
        check_range("kl_weight", kl_weight, at_least=0)
        self.weight, self.kl_weight, self.kernel = weight, kl_weight, kernel or InverseMultiquadricKernel()

    def forward(self, latents: LatentBatch) -> Tensor:
        """Return the cost, (B,)."""
        return self.kl_weight * latents.kl + self.weight * self.terms(latents)["mmd"]

    def terms(self, latents: LatentBatch) -> dict[str, Tensor]:
        """Return ``mmd``, (B,), without unit: its mean is the unbiased estimate of MMD^2 (Gretton et al. 2012, eq. 3).

        It is drawn against as many latents of the prior as there are images, and may be negative.
        """
        z = latents.z
        prior = latents.prior.sample(torch.Size([len(z)])).to(z)
        within = self._mean_of_others(z) + self._mean_of_others(prior)
        return {"mmd": within - 2 * self._similarity(z, prior).mean(1)}

    def _similarity(self, a: Tensor, b: Tensor) -> Tensor:
        squared_distance = (a[:, None] - b).square().sum(2)  # (B, B); cdist has no finite gradient at distance 0
        return self.kernel(squared_distance, a.shape[1])

    def _mean_of_others(self, z: Tensor) -> Tensor:
        """Return the mean of k(z_i, z_j) over j != i, (B,)."""
        return (self._similarity(z, z).sum(1) - 1) / max(len(z) - 1, 1)


def stratified_log_shares(batch_size: int, num_images: int) -> Tensor:
    """Return the logarithms of the shares of q(z|x_j) in the estimate of q(z_i), (B, B).

    z_i's own image is one of N and always in the batch: it has the share 1/N. The B - 1 others stand for the N - 1 that
    remain, (1 - 1/N) / (B - 1) each. Chen et al. let the batch's last one have another share than the rest; this is the
    mean over all choices of the last, as unbiased and of less variance.
    """
    own = 1 / max(num_images, batch_size) if batch_size > 1 else 1.0
    others = (1 - own) / max(batch_size - 1, 1)
    return torch.full((batch_size, batch_size), others).fill_diagonal_(own).log()
