"""Generator and discriminator in the manner of DCGAN (Radford, Metz & Chintala 2016)."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as spectrally_normalised

from lit_generative.description import Described
from lit_generative.nn.conditions import Condition, condition_of
from lit_generative.nn.heads import ImageHead, LatentStem, ProjectionHead, SmoothImageHead
from lit_generative.nn.sizes import Crop, ImageShape, check_sizes, level_shapes

__all__ = ["DCGANDiscriminator", "DCGANGenerator"]


class DCGANGenerator(Described, nn.Module):
    """Transposed convolutions that double the size, batch normalisation and ReLU; tanh at the end (sec. 3).

    Args:
        image_shape: (C, H, W) of the images.
        latent_dim: The size of z.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest. None: 64, 128, ...
            until the smaller side is at most 8 pixels.
        hidden: Widths of fully connected layers between z and the coarsest level. The paper has none; they help the
            parts of an image to agree.
        num_classes: For p(x|y): how many classes there are.
        smooth: Whether sizes are doubled bilinearly, followed by a convolution. Transposed convolutions, which the
            paper has, print a grid of 2 x 2 pixels until they have unlearned it (Odena et al. 2016).
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.

    Raises:
        ValueError: If ``widths`` is empty.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        latent_dim: int,
        widths: Sequence[int] | None = None,
        hidden: Sequence[int] = (),
        num_classes: int | None = None,
        smooth: bool = False,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, {"hidden": hidden}, latent_dim=latent_dim, num_classes=num_classes)
        _, *shapes = level_shapes(image_shape, widths)
        features, stem = [latent_dim, *hidden], []
        for i, o in pairwise(features):
            stem += [_linear(i, o), nn.BatchNorm1d(o), nn.ReLU(inplace=True)]
        stem.append(_linear(features[-1], prod(shapes[-1])))
        self.stem = LatentStem(stem, shapes[-1], condition_of(num_classes, condition))
        levels: list[nn.Module] = [nn.BatchNorm2d(shapes[-1][0]), nn.ReLU(inplace=True)]
        for (coarse, *_), (fine, *size) in pairwise(reversed(shapes)):
            doubling = _smooth_doubling if smooth else _doubling
            levels += [*doubling(coarse, fine, size), nn.BatchNorm2d(fine), nn.ReLU(inplace=True)]
        self.levels = nn.Sequential(*levels)
        self.head = (SmoothImageHead if smooth else ImageHead)(shapes[0][0], image_shape)
        self.to(memory_format=torch.channels_last)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1] for latents (B, latent_dim)."""
        return self.head(self.levels(self.stem(z, y)))


class DCGANDiscriminator(Described, nn.Module):
    """Strided convolutions that halve the size, a normalisation and leaky ReLU (sec. 3).

    Weights start as He et al. (2015) have them, not from the paper's N(0, 0.02^2), with which a signal that nothing
    normalises would die out.

    Args:
        image_shape: (C, H, W) of the images.
        widths: Channels at each level, from the finest (half the image's size) to the coarsest. None: 64, 128, ...
            until the smaller side is at most 4 pixels.
        batch_norm: Whether to normalise batches, as in the paper. Penalties on the gradients of single images, and
            spectral normalisation, stand in for it: turn it off.
        spectral_norm: Whether to divide each weight by its spectral norm (Miyato et al. 2018, eq. 8).
        num_classes: For D(x, y): how many classes there are.
        condition: What else it is told, such as attributes; ``num_classes`` is short for one of classes.

    Raises:
        ValueError: If ``widths`` is empty or has more levels than the image can be halved, or if both normalisations
            are asked for.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        widths: Sequence[int] | None = None,
        batch_norm: bool = True,
        spectral_norm: bool = False,
        num_classes: int | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        check_sizes(image_shape, num_classes=num_classes)
        channels = [shape[0] for shape in level_shapes(image_shape, widths, coarsest=4)]
        times, (height, width) = len(channels) - 1, image_shape[1:]
        if min(height, width) < 2**times:
            raise ValueError(f"widths={widths}: {height} x {width} pixels cannot be halved {times} times")
        if batch_norm and spectral_norm:
            raise ValueError(
                "spectral_norm=True bounds what batch norm would scale up again: set batch_norm=False with it"
            )
        levels: list[nn.Module] = []
        for level, (i, o) in enumerate(pairwise(channels)):
            has_norm = batch_norm and level > 0
            levels += [nn.Conv2d(i, o, 4, 2, padding=1, bias=not has_norm)]
            levels += [nn.BatchNorm2d(o)] if has_norm else []
            levels += [nn.LeakyReLU(0.2)]
        self.levels = nn.Sequential(*levels)
        # the kernel covers an odd size whole while rounding its half down
        self.head = ProjectionHead(
            channels[-1] * (height >> times) * (width >> times), condition_of(num_classes, condition)
        )
        for module in levels:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
        if spectral_norm:
            normalise_spectrally(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (B,), float32, of images (B, C, H, W) in [-1, 1]."""
        return self.head(self.levels(x.contiguous(memory_format=torch.channels_last)).flatten(1), y)


def normalise_spectrally(network: nn.Module) -> None:
    """Give each weight of a convolution, linear layer or embedding torch's spectral normalisation."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            spectrally_normalised(module)


def _doubling(coarse: int, fine: int, size: Sequence[int]) -> list[nn.Module]:
    return [nn.ConvTranspose2d(coarse, fine, 4, 2, padding=1, bias=False), Crop(size)]


def _smooth_doubling(coarse: int, fine: int, size: Sequence[int]) -> list[nn.Module]:
    before, after = nn.Conv2d(coarse, fine, 1, bias=False), nn.Conv2d(fine, fine, 3, padding=1, bias=False)
    return [before, nn.Upsample(scale_factor=2, mode="bilinear"), Crop(size), after]


def _linear(from_width: int, to_width: int) -> nn.Linear:
    return nn.Linear(from_width, to_width, bias=False)  # batch normalisation follows, which has one
