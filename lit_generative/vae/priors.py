"""Priors p(z) that are learned along with the VAE: mixtures, pseudo-inputs and flows.

A prior is given what encodes images, since some are made of posteriors, and returns a ``torch.distributions`` object.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F
from zuko.distributions import NormalizingFlow
from zuko.flows import NSF, GeneralCouplingTransform
from zuko.transforms import ComposedTransform

from lit_generative.checks import check_count, check_image_shape, check_range
from lit_generative.description import Described
from lit_generative.numerics import FullPrecisionModule
from lit_generative.vae.flows import AFFINE, FlowDistribution, identity_at_first

__all__ = [
    "Encode",
    "MixtureOfGaussiansPrior",
    "NeuralSplinePrior",
    "Prior",
    "RealNVPPrior",
    "StandardNormalPrior",
    "VampPrior",
]

Encode = Callable[[Tensor], Distribution]
"""Images (B, C, H, W) to q(z|x), batch shape (B,), event shape (latent_dim,)."""


class Prior(Described, FullPrecisionModule, ABC):
    """Makes p(z), without a batch shape; the event shape is (latent_dim,)."""

    @abstractmethod
    def forward(self, encode: Encode) -> Distribution:
        """Return p(z), whose ``log_prob`` takes (B, latent_dim) and whose ``sample`` takes (n,).

        Args:
            encode: Makes q(z|x) of images.
        """


class StandardNormalPrior(Prior):
    """N(0, I) (Kingma & Welling 2014, appendix B).

    Args:
        latent_dim: The size of z.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        _check_counts(latent_dim=latent_dim)
        self.zeros = nn.Buffer(torch.zeros(latent_dim), persistent=False)

    def forward(self, encode: Encode) -> Distribution:
        """Return N(0, I)."""
        return standard_normal(self.zeros)


class MixtureOfGaussiansPrior(Prior):
    """sum over k of w_k N(z; m_k, diag(s_k^2)), with learned weights, means and scales.

    Args:
        latent_dim: The size of z.
        components: How many Gaussians. Their means start as draws of N(0, I), their scales at 1, their weights equal.
    """

    def __init__(self, latent_dim: int, components: int = 50) -> None:
        super().__init__()
        _check_counts(latent_dim=latent_dim, components=components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self, encode: Encode) -> Distribution:
        """Return the mixture."""
        gaussians = Independent(Normal(self.means, self.log_scales.exp(), validate_args=False), 1)
        return MixtureSameFamily(Categorical(logits=self.logits), gaussians, validate_args=False)


class VampPrior(Prior):
    """1/K sum over k of q(z|u_k), where the K images u_k are learned (Tomczak & Welling 2018, eq. 9).

    It is the aggregate posterior of pseudo-inputs, which hardtanh keeps in [-1, 1]. The encoder must not need labels.

    Args:
        image_shape: (C, H, W) of the images.
        components: K, the number of pseudo-inputs.
        start: The gray level in [-1, 1] that the pseudo-inputs start around; the data's mean is a good one.
        spread: The standard deviation of the noise that they start with. :meth:`start_from` starts from images instead.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], components: int = 500, start: float = 0.0, spread: float = 0.1
    ) -> None:
        super().__init__()
        check_image_shape(image_shape)
        _check_counts(components=components)
        check_range("start", start, above=-1, below=1, hint="hardtanh passes no gradient at black and white")
        check_range("spread", spread, above=0)
        self.pseudo_inputs = nn.Parameter(start + spread * torch.randn(components, *image_shape))

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Let the pseudo-inputs be these images, for instance of the training set, before training.

        Args:
            images: (K, C, H, W) in [-1, 1].

        Raises:
            ValueError: If they are not as many or not of this shape.
        """
        if images.shape != self.pseudo_inputs.shape:
            shapes = tuple(images.shape), tuple(self.pseudo_inputs.shape)
            raise ValueError(f"images have shape {shapes[0]}; the pseudo-inputs need {shapes[1]}")
        self.pseudo_inputs.copy_(images.clamp(-0.99, 0.99))  # at -1 and 1 hardtanh passes no gradient

    def forward(self, encode: Encode) -> Distribution:
        """Return the mixture of the pseudo-inputs' posteriors, through which gradients reach the encoder as well."""
        posteriors = encode(F.hardtanh(self.pseudo_inputs))
        weights = Categorical(logits=torch.zeros(len(self.pseudo_inputs), device=self.pseudo_inputs.device))
        return MixtureSameFamily(weights, posteriors, validate_args=False)


class RealNVPPrior(Prior):
    """The density of f(e), e from N(0, I), where f is a chain of affine couplings (Dinh et al. 2017).

    f starts as the identity.

    Args:
        latent_dim: The size of z.
        layers: How many couplings; two in a row exchange the given and the changed half of the dimensions.
        hidden: The width of the two hidden layers of their networks.
    """

    def __init__(self, latent_dim: int, layers: int = 8, hidden: int = 128) -> None:
        super().__init__()
        _check_counts(latent_dim=latent_dim, layers=layers, hidden=hidden)
        self.zeros = nn.Buffer(torch.zeros(latent_dim), persistent=False)
        halves = [_half(latent_dim, layer) for layer in range(layers)]
        self.couplings = identity_at_first(
            GeneralCouplingTransform(latent_dim, mask=is_given, hidden_features=(hidden, hidden), **AFFINE)
            for is_given in halves
        )

    def forward(self, encode: Encode) -> Distribution:
        """Return the flow's distribution."""
        to_normal = ComposedTransform(*(coupling() for coupling in self.couplings))
        return FlowDistribution(NormalizingFlow(to_normal, standard_normal(self.zeros)))


class NeuralSplinePrior(Prior):
    """The density of f(e), e from N(0, I), where f is made of autoregressive rational-quadratic splines.

    These are the neural spline flows of Durkan et al. 2019, more flexible than :class:`RealNVPPrior`; sampling takes
    latent_dim passes a transform.

    Args:
        latent_dim: The size of z.
        transforms: How many autoregressive transforms; the order of the dimensions is reversed between them.
        hidden: The width of the two hidden layers of each transform's network.
        bins: Pieces of a spline, which covers [-5, 5]; beyond it is the identity.
    """

    def __init__(self, latent_dim: int, transforms: int = 3, hidden: int = 128, bins: int = 8) -> None:
        super().__init__()
        _check_counts(latent_dim=latent_dim, transforms=transforms, hidden=hidden, bins=bins)
        self.flow = NSF(latent_dim, transforms=transforms, bins=bins, hidden_features=(hidden, hidden))

    def forward(self, encode: Encode) -> Distribution:
        """Return the flow's distribution."""
        return FlowDistribution(self.flow())


def standard_normal(zeros: Tensor) -> Independent:
    """Return N(0, I) of the size, type and place of ``zeros`` (latent_dim,)."""
    return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1)


def _half(dim: int, layer: int) -> Tensor:
    """Return which dimensions the ``layer``-th coupling leaves as they are, (dim,), bool.

    Layers in pairs split by one binary digit of the dimension's number after the other. Any two dimensions differ in
    one of them, so that with enough layers each is changed directly by every other, both ways.
    """
    digits = max(1, (dim - 1).bit_length())
    return ((torch.arange(dim) >> (layer // 2 % digits)) + layer) % 2 == 1


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        check_count(name, count)
