"""Multilayer perceptrons on flattened images."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lit_generative.description import Described
from lit_generative.nn.conditions import Condition, condition_of, embedding_of
from lit_generative.nn.heads import PosteriorHead, ProjectionHead
from lit_generative.nn.layers import channels_out, hidden_layers
from lit_generative.nn.sizes import ImageShape, check_sizes
from lit_generative.numerics import at_least_single

__all__ = ["MLPDecoder", "MLPDiscriminator", "MLPEncoder", "MLPGenerator"]


class MLPEncoder(Described, nn.Module):
    """q(z|x), a diagonal normal by default (Kingma & Welling 2014, appendix C.2).

    Args:
        image_shape: (C, H, W) of the images.
        latent_dim: The size of z.
        hidden: Widths of the hidden layers, first to last; none make the network linear.
        num_classes: For q(z|x, y): how many classes there are.
        posterior: Makes q of what the last layer puts out: any module with ``num_parameters(latent_dim)``, such as
            ``lit_generative.vae.FullNormalPosterior``; None: a diagonal normal.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        hidden: Sequence[int] = (400,),
        num_classes: int | None = None,
        posterior: nn.Module | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, {"hidden": hidden}, latent_dim=latent_dim, num_classes=num_classes)
        sizes = [prod(image_shape), *hidden]
        self.layers = hidden_layers(sizes)
        self.head = PosteriorHead(sizes[-1], latent_dim, condition_of(num_classes, condition), posterior)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y) with event shape (latent_dim,) for images (B, C, H, W) in [-1, 1]."""
        return self.head(self.layers(x.flatten(1)), y)


class MLPDecoder(Described, nn.Module):
    """The parameters of p(x|z).

    Args:
        image_shape: (C, H, W) of the images.
        latent_dim: The size of z.
        hidden: Widths of the hidden layers, first to last; none make the network linear.
        num_classes: For p(x|z, y): how many classes there are.
        output_channels: The channels of the likelihood's parameters, where they are more than the images' (its
            ``channels(C)``, for instance 2 C for ``GaussianPerPixelLikelihood``); None: C.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.

    Raises:
        ValueError: If ``output_channels`` is below 1.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        hidden: Sequence[int] = (400,),
        num_classes: int | None = None,
        output_channels: int | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, {"hidden": hidden}, latent_dim=latent_dim, num_classes=num_classes)
        self.output_shape = (channels_out(output_channels, image_shape[0]), *image_shape[1:])
        self.classes = embedding_of(condition_of(num_classes, condition), latent_dim, has_none=False)
        sizes = [latent_dim, *hidden]
        self.layers = hidden_layers(sizes)
        self.head = nn.Linear(sizes[-1], prod(self.output_shape))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the likelihood's parameters (B, output_channels, H, W) for latents (B, latent_dim)."""
        return self.head(self.layers(self.classes(z, y))).unflatten(1, self.output_shape)


class MLPGenerator(Described, nn.Module):
    """x = tanh(MLP(z)) (Goodfellow et al. 2014, sec. 5).

    Args:
        image_shape: (C, H, W) of the images.
        latent_dim: The size of z.
        hidden: Widths of the hidden layers, first to last; none make the network linear.
        num_classes: For p(x|y): how many classes there are.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        hidden: Sequence[int] = (256, 256),
        num_classes: int | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        self.decoder = MLPDecoder(image_shape, latent_dim, hidden, num_classes, condition=condition)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1] for latents (B, latent_dim)."""
        return torch.tanh(at_least_single(self.decoder(z, y)))


class MLPDiscriminator(Described, nn.Module):
    """D(x) = MLP(x), a logit, with leaky ReLU.

    Args:
        image_shape: (C, H, W) of the images.
        hidden: Widths of the hidden layers, first to last; none make the network linear.
        num_classes: For D(x, y): how many classes there are.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        hidden: Sequence[int] = (256, 256),
        num_classes: int | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, {"hidden": hidden}, num_classes=num_classes)
        sizes = [prod(image_shape), *hidden]
        self.layers = hidden_layers(sizes, nn.LeakyReLU)
        self.head = ProjectionHead(sizes[-1], condition_of(num_classes, condition))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (B,), float32, of images (B, C, H, W) in [-1, 1]."""
        return self.head(self.layers(x.flatten(1)), y)
