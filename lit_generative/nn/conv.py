"""Residual convolutional encoder and decoder for images of any size.

Both fold 2x2 pixels into channels first (pixel unshuffle), which takes three quarters of the positions off the
costliest layers, and keep their weights in channels_last, which bf16 convolutions on a CPU are several times faster in.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from lit_generative.description import Described
from lit_generative.nn.layers import (
    ClassEmbedding,
    ImageShape,
    channels_out,
    hidden_layers,
    levels_down,
    levels_up,
    num_parameters,
    posterior_of,
)
from lit_generative.nn.sizes import check_widths, halvings, padding_to

__all__ = ["ConvDecoder", "ConvEncoder"]


class ConvEncoder(Described, nn.Module):
    """q(z|x), a diagonal normal by default, from residual blocks at 1/2, 1/4, ... of the image's size.

    Args:
        image_shape: (C, H, W) of the images; sizes that do not halve evenly are padded.
        latent_dim: The size of z.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest.
        blocks: Residual blocks a level.
        hidden: Widths of fully connected layers between the coarsest level and z, from the image's side. They let the
            parts of an image depend on each other, so that samples from the prior hold together.
        num_classes: For q(z|x, y): how many classes there are.
        posterior: Makes q of what the last layer puts out: any module with ``num_parameters(latent_dim)``, such as
            ``lit_generative.vae.FullNormalPosterior``; None: a diagonal normal.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        hidden: Sequence[int] = (512,),
        num_classes: int | None = None,
        posterior: nn.Module | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        check_widths(widths)
        self.padding = padding_to(height, width, 2 ** len(widths))
        self.levels = levels_down(channels, widths, blocks)
        sizes = [widths[-1] * prod(halvings(height, width, len(widths))[-1]), *hidden]
        self.hidden = hidden_layers(sizes, nn.SiLU)
        self.classes = ClassEmbedding(num_classes, sizes[-1])
        self.head = nn.Linear(sizes[-1], num_parameters(posterior, latent_dim))
        self.posterior = posterior
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y) with event shape (latent_dim,) for images (B, C, H, W) in [-1, 1]."""
        x = F.pad(x, self.padding, mode="replicate").to(memory_format=torch.channels_last)
        features = self.hidden(F.silu(self.levels(x)).flatten(1))
        return posterior_of(self.posterior, self.head(self.classes(features, y)))


class ConvDecoder(Described, nn.Module):
    """The parameters of p(x|z), the mirror image of :class:`ConvEncoder`.

    Args:
        image_shape: (C, H, W) of the images.
        latent_dim: The size of z.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest.
        blocks: Residual blocks a level.
        hidden: Widths of fully connected layers between the coarsest level and z, from the image's side. They let the
            parts of an image depend on each other, so that samples from the prior hold together.
        num_classes: For p(x|z, y): how many classes there are.
        output_channels: The channels of the likelihood's parameters, where they are more than the images' (its
            ``channels(C)``, for instance 2 C for ``GaussianPerPixelLikelihood``); None: C.

    Raises:
        ValueError: If ``widths`` is empty or ``output_channels`` below 1.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        hidden: Sequence[int] = (512,),
        num_classes: int | None = None,
        output_channels: int | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        check_widths(widths)
        self.padding = padding_to(height, width, 2 ** len(widths))
        self.coarsest = (widths[-1], *halvings(height, width, len(widths))[-1])
        self.classes = ClassEmbedding(num_classes, latent_dim)
        sizes = [latent_dim, *reversed(hidden)]
        self.hidden = hidden_layers(sizes, nn.SiLU)
        self.stem = nn.Linear(sizes[-1], prod(self.coarsest))
        self.levels = levels_up(channels_out(output_channels, channels), widths, blocks)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the likelihood's parameters (B, output_channels, H, W) for latents (B, latent_dim)."""
        x = self.stem(self.hidden(self.classes(z, y))).unflatten(1, self.coarsest).to(memory_format=torch.channels_last)
        return F.pad(self.levels(x), [-side for side in self.padding])
