"""Residual convolutional encoders and decoders for images of any size; latents are vectors, or grids of them."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F

from lit_generative.checks import check_range
from lit_generative.description import Described
from lit_generative.nn.conditions import Condition, condition_of, embedding_of
from lit_generative.nn.embeddings import ClassEmbedding
from lit_generative.nn.heads import PosteriorHead, diagonal_normal
from lit_generative.nn.layers import hidden_layers
from lit_generative.nn.levels import ChannelNorm, DownLevels, UpLevels
from lit_generative.nn.sizes import ImageShape, autoencoder_widths, check_sizes, check_widths, level_shapes
from lit_generative.numerics import at_least_single

__all__ = ["ConvDecoder", "ConvEncoder", "SpatialDecoder", "SpatialEncoder", "SpatialGaussianEncoder"]


class ConvEncoder(Described, nn.Module):
    """q(z|x), a diagonal normal by default, from residual blocks at 1/2, 1/4, ... of the image's size.

    Args:
        image_shape: (C, H, W) of the images; sizes that do not halve evenly are padded.
        latent_dim: The size of z.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest. None: by the image's
            size (:func:`~lit_generative.nn.sizes.autoencoder_widths`).
        blocks: Residual blocks a level.
        hidden: Widths of fully connected layers between the coarsest level and z, from the image's side. They let the
            parts of an image depend on each other, so that samples from the prior hold together.
        num_classes: For q(z|x, y): how many classes there are.
        posterior: Makes q of what the last layer puts out: any module with ``num_parameters(latent_dim)``, such as
            ``lit_generative.vae.FullNormalPosterior``; None: a diagonal normal.
        dropout: The probability with which a feature of the coarsest level is set to 0 in training.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        widths: Sequence[int] | None = (64, 128),
        blocks: int = 1,
        hidden: Sequence[int] = (512,),
        num_classes: int | None = None,
        posterior: nn.Module | None = None,
        dropout: float = 0.0,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, {"hidden": hidden}, latent_dim=latent_dim, blocks=blocks, num_classes=num_classes)
        check_range("dropout", dropout, at_least=0, below=1)
        self.dropout = nn.Dropout(dropout)
        self.levels = DownLevels(image_shape, widths, blocks)
        sizes = [prod(self.levels.shape), *hidden]
        self.hidden = hidden_layers(sizes, nn.SiLU)
        self.head = PosteriorHead(sizes[-1], latent_dim, condition_of(num_classes, condition), posterior)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y) with event shape (latent_dim,) for images (B, C, H, W) in [-1, 1]."""
        return self.head(self.hidden(self.dropout(F.silu(self.levels(x)).flatten(1))), y)


class ConvDecoder(Described, nn.Module):
    """The parameters of p(x|z), the mirror image of :class:`ConvEncoder`.

    Args:
        image_shape: (C, H, W) of the images.
        latent_dim: The size of z.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest. None: by the image's
            size (:func:`~lit_generative.nn.sizes.autoencoder_widths`).
        blocks: Residual blocks a level.
        hidden: Widths of fully connected layers between z and the coarsest level, from the image's side.
        num_classes: For p(x|z, y): how many classes there are.
        output_channels: The channels of the likelihood's parameters, where they are more than the images' (its
            ``channels(C)``, for instance 2 C for ``GaussianPerPixelLikelihood``); None: C.
        smooth: Whether sizes are doubled without the trace of a grid, see :class:`~lit_generative.nn.levels.UpLevels`.
        dropout: The probability with which a hidden feature is set to 0 in training.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.

    Raises:
        ValueError: If ``widths`` is empty or ``output_channels`` below 1.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        widths: Sequence[int] | None = (64, 128),
        blocks: int = 1,
        hidden: Sequence[int] = (512,),
        num_classes: int | None = None,
        output_channels: int | None = None,
        smooth: bool = False,
        dropout: float = 0.0,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, {"hidden": hidden}, latent_dim=latent_dim, blocks=blocks, num_classes=num_classes)
        check_range("dropout", dropout, at_least=0, below=1)
        widths = autoencoder_widths(*image_shape[1:]) if widths is None else widths
        self.dropout = nn.Dropout(dropout)
        self.coarsest = level_shapes(image_shape, widths)[-1]
        self.classes = embedding_of(condition_of(num_classes, condition), latent_dim, has_none=False)
        sizes = [latent_dim, *reversed(hidden)]
        self.hidden = hidden_layers(sizes, nn.SiLU)
        self.stem = nn.Linear(sizes[-1], prod(self.coarsest))
        self.levels = UpLevels(image_shape, widths, blocks, output_channels, smooth)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the likelihood's parameters (B, output_channels, H, W) for latents (B, latent_dim)."""
        x = self.stem(self.dropout(self.hidden(self.classes(z, y)))).unflatten(1, self.coarsest)
        return self.levels(x.to(memory_format=torch.channels_last))


class SpatialEncoder(Described, nn.Module):
    """Features of an image at 1/2^k of its size, for k levels of residual blocks.

    They are normalised at each place (zero mean, unit variance over channels): a commitment loss would otherwise be
    lowered by ever smaller features.

    Args:
        image_shape: (C, H, W) of the images; sizes that do not halve evenly are padded.
        code_dim: Channels of the features.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest.
        blocks: Residual blocks a level.
        num_classes: For features that depend on a class: how many classes there are.

    Attributes:
        grid: (h, w), rows and columns of features.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        code_dim: int = 32,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, code_dim=code_dim, blocks=blocks, num_classes=num_classes)
        self.levels = DownLevels(image_shape, widths, blocks)
        self.grid = self.levels.shape[1:]
        self.classes = ClassEmbedding(num_classes, widths[-1])
        self.head = nn.Sequential(ChannelNorm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], code_dim, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return features (B, code_dim, h, w), float32, of images (B, C, H, W) in [-1, 1]."""
        features = at_least_single(self.head(self.classes(self.levels(x), y))).movedim(1, 3)
        return F.layer_norm(features, features.shape[3:]).movedim(3, 1)


class SpatialGaussianEncoder(Described, nn.Module):
    """q(z|x), a diagonal normal over a grid of latents, for latent diffusion (Rombach et al. 2022, section 3.1).

    Each level halves the size: k of them are a downsampling by 2^k. Its decoder is :class:`SpatialDecoder`.

    Args:
        image_shape: (C, H, W) of the images; sizes that do not halve evenly are padded.
        code_dim: Channels of the latents.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest.
        blocks: Residual blocks a level.
        num_classes: For q(z|x, y): how many classes there are.

    Attributes:
        latent_shape: (code_dim, h, w) of an image's latents.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        code_dim: int = 4,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, code_dim=code_dim, blocks=blocks, num_classes=num_classes)
        check_widths(widths)
        self.levels = DownLevels(image_shape, widths, blocks)
        self.latent_shape = (code_dim, *self.levels.shape[1:])
        self.classes = ClassEmbedding(num_classes, widths[-1])
        self.head = nn.Sequential(ChannelNorm(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], 2 * code_dim, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y) over (B, code_dim * h * w), the grids in a row, for images (B, C, H, W) in [-1, 1]."""
        mean, log_variance = self.head(self.classes(self.levels(x), y)).chunk(2, dim=1)
        return diagonal_normal(mean.flatten(1), 0.5 * log_variance.flatten(1))


class SpatialDecoder(Described, nn.Module):
    """The parameters of p(x|z) from a grid z, the mirror image of the two spatial encoders.

    Args:
        image_shape: (C, H, W) of the images.
        code_dim: Channels of z.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest.
        blocks: Residual blocks a level.
        num_classes: For p(x|z, y): how many classes there are.
        output_channels: As many as the likelihood needs for an image. None: those of the images.
        smooth: Whether sizes are doubled without the trace of a grid, see :class:`~lit_generative.nn.levels.UpLevels`.

    Attributes:
        latent_shape: (code_dim, h, w) of an image's latents.

    Raises:
        ValueError: If ``widths`` is empty or ``output_channels`` below 1.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        code_dim: int = 32,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        num_classes: int | None = None,
        output_channels: int | None = None,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, code_dim=code_dim, blocks=blocks, num_classes=num_classes)
        check_widths(widths)
        self.latent_shape = (code_dim, *level_shapes(image_shape, widths)[-1][1:])
        self.stem = nn.Conv2d(code_dim, widths[-1], 3, padding="same")
        self.classes = ClassEmbedding(num_classes, widths[-1])
        self.levels = UpLevels(image_shape, widths, blocks, output_channels, smooth)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the likelihood's parameters (B, output_channels, H, W) for ``z`` (B, code_dim, h, w), or in a row."""
        z = z.unflatten(1, self.latent_shape) if z.ndim == 2 else z
        return self.levels(self.classes(self.stem(z.contiguous(memory_format=torch.channels_last)), y))
