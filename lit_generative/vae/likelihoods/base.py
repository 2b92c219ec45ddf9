"""What all likelihoods p(x|z) have in common."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from lit_generative.description import Described
from lit_generative.numerics import FullPrecisionModule

__all__ = ["ImageDistribution", "Likelihood", "check_images", "wrong_channels"]


class Likelihood(Described, FullPrecisionModule, ABC):
    """A map from decoder outputs (B, channels(C), H, W) to p(x|z).

    Attributes:
        is_discrete: Whether p is a probability of one of 256 levels, so that its bound is in bits/dim.
        has_mass: Whether :meth:`log_mass` is defined, so that test images have a likelihood.
    """

    is_discrete = False
    has_mass = False

    @abstractmethod
    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) with event shape (C, H, W)."""

    def channels(self, channels: int) -> int:
        """Return how many channels the decoder must put out for images of ``channels``."""
        return channels

    def log_mass(self, p: Distribution, x: Tensor) -> Tensor:
        """Return log P(x), (B,), in nats: the probability that ``p`` gives to the 8-bit images (B, C, H, W) ``x``.

        It is what is comparable between likelihoods: of a discrete one ``log_prob``, of a density the mass in each
        pixel's bin, 2/255 wide; the bins of black and white take what is beyond.

        Args:
            p: What :meth:`forward` returned.
            x: Images in [-1, 1], of 256 levels.
        """
        return p.log_prob(x)


class ImageDistribution(Independent):
    """Independent pixels (B, C, H, W) as a distribution over images, event shape (C, H, W).

    Args:
        pixels: The distribution of each value, batch shape (B, C, H, W).
        likelihood: Whose it is; it knows how many channels a decoder should have put out.
    """

    def __init__(self, pixels: Distribution, likelihood: Likelihood) -> None:
        self.likelihood = likelihood
        super().__init__(pixels, 3, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "ImageDistribution":
        """Return the distribution with more batch dimensions."""
        return ImageDistribution(self.base_dist.expand(torch.Size(batch_shape) + self.event_shape), self.likelihood)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of images (B, C, H, W), (B,), in nats.

        Raises:
            ValueError: If the images are not of the shape that the decoder has put out parameters for.
        """
        check_images(self, value, self.likelihood)
        return super().log_prob(value)


def check_images(p: Distribution, x: Tensor, likelihood: Likelihood) -> None:
    """Refuse images ``x`` whose channels are not those of ``p``: broadcasting would hide the mistake."""
    if x.shape[-3:] != p.event_shape:
        raise ValueError(
            f"x has images of {tuple(x.shape[-3:])}, but the decoder's output makes {type(likelihood).__name__} one of "
            f"{tuple(p.event_shape)}; set the decoder's output_channels to {likelihood.channels(x.shape[-3])}"
        )


def wrong_channels(likelihood: Likelihood, found: int) -> ValueError:
    """Say how many channels a decoder should have put out that put out ``found``, as many as its images have."""
    name, needed = type(likelihood).__name__, likelihood.channels(found)
    return ValueError(
        f"decoded has {found} channels, which are no parameters of {name}; set the decoder's output_channels to "
        f"{needed} for images of {found} channels"
    )
