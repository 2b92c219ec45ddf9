"""A discriminator of patches, whose logits are many an image."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_generative.description import Described
from lit_generative.nn.dcgan import normalise_spectrally
from lit_generative.nn.sizes import ImageShape, check_sizes, check_widths

__all__ = ["PatchDiscriminator"]


class PatchDiscriminator(Described, nn.Module):
    """Strided convolutions to a grid of logits, each of which sees a part of the image (PatchGAN, Isola et al. 2017).

    It has no batch normalisation, with which penalties on single images would have no meaning.

    Args:
        image_shape: (C, H, W) of the images.
        widths: Channels at 1/2, 1/4, ... of the image's size. A logit of two levels sees 22 pixels a side.
        spectral_norm: Whether to divide each weight by its spectral norm (Miyato et al. 2018, eq. 8).

    Raises:
        ValueError: If ``widths`` is empty or has more levels than the image can be halved.
    """

    def __init__(self, image_shape: ImageShape, widths: Sequence[int] = (64, 128), spectral_norm: bool = False) -> None:
        super().__init__()
        check_sizes(image_shape)
        check_widths(widths)
        if min(image_shape[1:]) < 2 ** len(widths):
            height, width = image_shape[1:]
            raise ValueError(f"widths={list(widths)}: {height} x {width} pixels cannot be halved {len(widths)} times")
        channels = [image_shape[0], *widths]
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 4, 2, padding=1), nn.LeakyReLU(0.2))
            for before, after in zip(channels, widths, strict=False)
        )
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for module in self.levels.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
        if spectral_norm:
            normalise_spectrally(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return logits (B, h, w), float32, of patches of images (B, C, H, W) in [-1, 1]; ``y`` makes no difference."""
        return self.head(self.features(x)[-1]).float().squeeze(1)

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the activations of each level, (B, widths[k], H / 2^(k + 1), W / 2^(k + 1))."""
        found = [x.contiguous(memory_format=torch.channels_last)]
        for level in self.levels:
            found.append(level(found[-1]))
        return found[1:]
