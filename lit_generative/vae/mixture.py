"""A mixture of normals with full covariances, fitted to latents by expectation maximisation."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.numerics import FullPrecisionModule

__all__ = ["AggregatePrior", "Components", "GaussianMixture", "component_log_probs", "fit_components"]


class Components(NamedTuple):
    """The parameters of a mixture of K normals.

    Attributes:
        log_weights: Logarithms of the shares, (K,).
        means: (K, d).
        factors: Lower triangular Cholesky factors L of the covariances L L^T, (K, d, d).
    """

    log_weights: Tensor
    means: Tensor
    factors: Tensor


class AggregatePrior(Described):
    """How to sample from the aggregate posterior q(z) = E_x[q(z|x)] instead of the prior.

    A VAE's posteriors seldom fill the prior: it has holes from which the decoder makes no good images (Hoffman &
    Johnson 2016; Ghosh et al. 2020, section 4, who fit a mixture of 10 normals). With this the model fits a mixture to
    draws of q(z|x) of training images, at the end of each validation, and samples from it; a model with classes fits
    one to each class. Training is not touched.

    Args:
        components: Normals in the mixture.
        num_images: At most so many training images are used.
        iterations: At most so many steps of expectation maximisation.
        shrinkage: Each covariance is drawn to that of all latents as if it had seen so many more of them, which keeps
            it regular where a component has few.
        seed: The seed of the draws and of the components' beginnings.

    Raises:
        ValueError: If a number is too small.
    """

    def __init__(
        self,
        components: int = 10,
        num_images: int = 10_000,
        iterations: int = 50,
        shrinkage: float = 10.0,
        seed: int = 0,
    ) -> None:
        check_count("components", components)
        check_count("num_images", num_images, at_least=2)
        check_count("iterations", iterations)
        check_range("shrinkage", shrinkage, above=0, hint="without it covariances would be singular")
        check_count("seed", seed, at_least=0)
        self.components, self.num_images, self.iterations = components, num_images, iterations
        self.shrinkage, self.seed = shrinkage, seed

    def fit(self, z: Tensor) -> Components:
        """Return the mixture of latents ``z`` (N, d), in float64 on the CPU; the same latents give the same mixture."""
        generator = torch.Generator().manual_seed(self.seed)
        z = z.cpu().double()  # some devices have no float64
        return fit_components(z, self.components, self.iterations, self.shrinkage, generator)[0]


class GaussianMixture(FullPrecisionModule):
    """One mixture per class, in buffers, so that checkpoints hold it.

    Args:
        num_classes: How many mixtures; 1 without classes.
        components: K.
        latent_dim: d.

    Attributes:
        log_weights, means, factors: Those of :class:`Components`, of each class.
        fitted_at: Training images seen when it was fitted; -1: it is not.
    """

    def __init__(self, num_classes: int, components: int, latent_dim: int) -> None:
        super().__init__()
        for name, count in {"num_classes": num_classes, "components": components, "latent_dim": latent_dim}.items():
            check_count(name, count)
        self.log_weights = nn.Buffer(torch.full((num_classes, components), -math.log(components)))
        self.means = nn.Buffer(torch.zeros(num_classes, components, latent_dim))
        self.factors = nn.Buffer(torch.eye(latent_dim).repeat(num_classes, components, 1, 1))
        self.fitted_at = nn.Buffer(torch.tensor(-1))

    @property
    def is_fitted(self) -> bool:
        """Whether there is a mixture to draw from."""
        return int(self.fitted_at) >= 0

    def keep(self, fitted: list[Components], images_seen: int) -> None:
        """Take the mixtures of all classes, in their order, fitted after ``images_seen`` training images."""
        for name in Components._fields:
            getattr(self, name).copy_(torch.stack([getattr(components, name) for components in fitted]))
        self.fitted_at.fill_(images_seen)

    def begin_anew(self, model: Any) -> None:
        """Forget that it was fitted, to the latents of other images."""
        self.fitted_at.fill_(-1)

    def sample(self, n: int, y: Tensor | None = None) -> Tensor:
        """Draw latents (n, d), of the classes ``y`` (n,)."""
        y = self._labels(n, y)
        k = torch.multinomial(self.log_weights.exp()[y], 1).squeeze(1)
        noise = torch.randn(n, self.means.shape[2], 1, device=self.means.device)
        return self.means[y, k] + (self.factors[y, k] @ noise).squeeze(2)

    def log_prob(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return log p(z|y), (B,), in nats, of latents ``z`` (B, d) of the classes ``y`` (B,)."""
        y = self._labels(len(z), y)
        log_probs = z.new_empty(len(z))
        for label in y.unique():
            mixture = Components(self.log_weights[label], self.means[label], self.factors[label])
            log_probs[y == label] = component_log_probs(z[y == label], mixture).logsumexp(0)
        return log_probs

    def _labels(self, n: int, y: Tensor | None) -> Tensor:
        return torch.zeros(n, dtype=torch.long, device=self.means.device) if y is None else y


def component_log_probs(z: Tensor, mixture: Components) -> Tensor:
    """Return log(w_k N(z_i; mu_k, Sigma_k)), (K, N), in nats, for latents ``z`` (N, d)."""
    centred = (z - mixture.means[:, None]).mT  # (K, d, N)
    white = torch.linalg.solve_triangular(mixture.factors, centred, upper=False)
    log_volume = mixture.factors.diagonal(dim1=1, dim2=2).log().sum(1) + z.shape[1] / 2 * math.log(2 * math.pi)
    return (mixture.log_weights - log_volume)[:, None] - white.square().sum(1) / 2


def fit_components(
    z: Tensor, components: int, iterations: int, shrinkage: float, generator: torch.Generator, tolerance: float = 1e-4
) -> tuple[Components, list[float]]:
    """Fit a mixture by expectation maximisation (Dempster et al. 1977) from the centres of k-means++.

    It maximises the log-likelihood plus the logarithm of a conjugate prior of the covariances (Fraley & Raftery 2007),
    -m/2 (log |Sigma| + tr(V Sigma^-1)), where V is the latents' variance, of each dimension alone, over K^(2/d).

    Args:
        z: Latents (N, d).
        components: K.
        iterations: At most so many steps.
        shrinkage: m, which counts as so many latents.
        generator: The source of the k-means++ centres.
        tolerance: It ends when a step gains less, in nats per latent.

    Returns:
        The mixture, and what is maximised before each step and after the last, in nats per latent; it never falls.

    Raises:
        ValueError: If there are fewer than two latents. With fewer than components, some have none or share theirs.
    """
    if len(z) < 2:
        raise ValueError(f"components={components}, but there are {len(z)} latents to fit them to; give at least 2")
    spread = z.var(0).clamp(min=1e-12) / components ** (2 / z.shape[1])  # the diagonal of V
    nearest = torch.cdist(z, spread_centres(z, components, generator)).argmin(1)
    responsibilities = nn.functional.one_hot(nearest, components).T.to(z)  # (K, N)
    objectives: list[float] = []
    mixture = maximise(z, responsibilities, spread, shrinkage)
    for _ in range(iterations):
        log_joint = component_log_probs(z, mixture)
        objectives.append(_objective(log_joint, mixture, spread, shrinkage))
        if len(objectives) > 1 and objectives[-1] - objectives[-2] < tolerance:
            return mixture, objectives
        mixture = maximise(z, log_joint.softmax(0), spread, shrinkage)
    return mixture, [*objectives, _objective(component_log_probs(z, mixture), mixture, spread, shrinkage)]


def maximise(z: Tensor, responsibilities: Tensor, spread: Tensor, shrinkage: float) -> Components:
    """Return the mixture that is best for given responsibilities (K, N): the second half of a step."""
    counts = responsibilities.sum(1).clamp(min=1e-10)  # a component may lose all its latents
    means = responsibilities @ z / counts[:, None]
    centred = z - means[:, None]  # (K, N, d)
    scatter = (centred * responsibilities[..., None]).mT @ centred
    covariances = (scatter + shrinkage * spread.diag()) / (counts + shrinkage)[:, None, None]
    return Components((counts / counts.sum()).log(), means, torch.linalg.cholesky(covariances))


def spread_centres(z: Tensor, components: int, generator: torch.Generator) -> Tensor:
    """Draw K of the latents ``z`` (N, d), each with a probability that goes with the squared distance to those before.

    That is k-means++ (Arthur & Vassilvitskii 2007, section 2.2).
    """
    centres = z[torch.randint(len(z), (1,), generator=generator)]
    for _ in range(components - 1):
        squared_distance = torch.cdist(z, centres).amin(1).square()
        chosen = torch.multinomial(squared_distance.clamp(min=1e-30), 1, generator=generator)
        centres = torch.cat([centres, z[chosen]])
    return centres


def _objective(log_joint: Tensor, mixture: Components, spread: Tensor, shrinkage: float) -> float:
    """Return what expectation maximisation increases, in nats per latent."""
    log_volume = mixture.factors.diagonal(dim1=1, dim2=2).log().sum(1)
    inverse = torch.cholesky_inverse(mixture.factors).diagonal(dim1=1, dim2=2)
    penalty = shrinkage * (log_volume + (inverse * spread).sum(1) / 2).sum()
    return float((log_joint.logsumexp(0).sum() - penalty) / log_joint.shape[1])
