"""Conditions that are images: a smaller one, a gray one, one with a hole. Channels beside those of the noisy image."""

from abc import abstractmethod
from collections.abc import Mapping
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_generative.checks import check_count, check_range
from lit_generative.nn.conditions import Condition

__all__ = ["GrayCondition", "ImageCondition", "LowResolutionCondition", "MaskedCondition", "luma", "refuse_images"]


class ImageCondition(Condition):
    """An image (B, c, H, W) in [-1, 1] that is made from the one to be learned; NaN where none is given.

    The network gets it as channels beside its input (Saharia et al. 2021, "SR3"; 2022, "Palette"), and one more that
    is 1 where the condition is given and 0 where it is not.

    Attributes:
        baseline_name: What reports call :meth:`baseline`.
    """

    none = float("nan")
    baseline_name: str = "condition"

    @abstractmethod
    def make(self, image: Tensor) -> Tensor:
        """Return the condition (B, c, H, W) of images (B, C, H, W) in [-1, 1]."""

    @abstractmethod
    def given_channels(self, image_channels: int) -> int:
        """Return c."""

    def baseline(self, y: Tensor) -> Tensor | None:
        """Return what one would take for the image without a model, (B, C, H, W), to compare with; None: nothing."""
        return None

    def of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the batch's own ``condition``, if it has one, or make it from ``image``."""
        return batch["condition"] if "condition" in batch else self.make(batch["image"])

    def check(self, y: Tensor | None, n: int) -> None:
        """Refuse what are no ``n`` images."""
        if not isinstance(y, Tensor) or y.ndim != 4 or len(y) != n or not y.is_floating_point():
            found = f"has shape {tuple(y.shape)}" if isinstance(y, Tensor) else f"is {y}"
            raise ValueError(f"y {found}: give {self.asks}, floats ({n}, channels, height, width) in [-1, 1]")

    def channels(self, image_channels: int) -> int:
        """Return c and one more."""
        return self.given_channels(image_channels) + 1

    def beside(self, y: Tensor) -> Tensor:
        """Return y, with 0 for what is not given, and where it is given."""
        is_given = ~y[:, :1].isnan()
        return torch.cat([torch.where(is_given, y, 0), is_given.to(y.dtype)], dim=1)


class LowResolutionCondition(ImageCondition):
    """A smaller image, for super-resolution: y is it, upscaled bicubically (Saharia et al. 2021).

    Training images are shrunk by an antialiased bicubic filter and rounded to 256 levels, as files are. In training y
    is then noised to a level s that is drawn evenly up to ``noise``, and the network is told s (Ho et al. 2021,
    "Cascaded diffusion", section 4: it does not trust the small image's artefacts). Sampling takes a low level of it.

    Args:
        factor: How much smaller it is, each way.
        noise: The most s, the standard deviation beside sqrt(1 - s^2) of the image, in [0, 1). 0: none.
        sampling_noise: s of sampling.
    """

    asks = "low-resolution images, upscaled to the model's size"
    baseline_name = "bicubic"

    def __init__(self, factor: int, noise: float = 0.3, sampling_noise: float = 0.05) -> None:
        check_count("factor", factor, at_least=2, optional=False)
        check_range("noise", noise, at_least=0, below=1)
        check_range(
            "sampling_noise", sampling_noise, at_least=0, at_most=noise, hint="training knows no more than noise"
        )
        self.factor, self.noise, self.sampling_noise = factor, noise, sampling_noise

    def small(self, image: Tensor) -> Tensor:
        """Return images (B, C, H / factor, W / factor), rounded up, of 256 levels."""
        size = [ceil(side / self.factor) for side in image.shape[2:]]
        small = F.interpolate(image.float(), size, mode="bicubic", antialias=True).clamp(-1, 1)
        return ((small + 1) * 127.5).round() / 127.5 - 1

    def upscaled(self, small: Tensor, size: tuple[int, int]) -> Tensor:
        """Return small images (B, C, h, w) at ``size``, y."""
        return F.interpolate(small, size, mode="bicubic", antialias=True).clamp(-1, 1)

    def make(self, image: Tensor) -> Tensor:
        """Shrink and upscale."""
        height, width = image.shape[2:]
        return self.upscaled(self.small(image), (height, width))

    def baseline(self, y: Tensor) -> Tensor:
        """Return the bicubic image itself."""
        return y

    def given_channels(self, image_channels: int) -> int:
        """Return those of the image, and one that tells s."""
        return image_channels + 1

    def told(self, y: Tensor, is_training: bool = False) -> Tensor:
        """Add noise, and the channel that tells how much."""
        s = torch.full((len(y), 1, 1, 1), self.sampling_noise, device=y.device)
        if is_training:
            s = torch.rand_like(s) * self.noise
        noisy = (1 - s**2).sqrt() * y + s * torch.randn_like(y)
        return torch.cat([noisy, s.expand(-1, 1, *y.shape[2:])], dim=1)


class GrayCondition(ImageCondition):
    """The same image in gray, for colourisation; y (B, 1, H, W) is the luma of ITU-R 601, as PIL has it."""

    asks = "gray images"
    baseline_name = "gray"

    def make(self, image: Tensor) -> Tensor:
        """Return the luma."""
        if image.shape[1] != 3:
            raise ValueError(f"condition=GrayCondition: the images have {image.shape[1]} channels, but colours need 3")
        return luma(image)

    def given_channels(self, image_channels: int) -> int:
        """Return 1."""
        return 1

    def baseline(self, y: Tensor) -> Tensor:
        """Return the gray image."""
        return y.expand(-1, 3, -1, -1)


class MaskedCondition(ImageCondition):
    """The image with a hole, for inpainting; y (B, C + 1, H, W) is the image, 0 in the hole, and 1 where it is known.

    In training and tests the hole is a rectangle anywhere, its sides drawn evenly.

    Args:
        smallest: The least of a side, as a share of the image's.
        largest: The most.
    """

    asks = "images with a hole, and where they are known"
    baseline_name = "hole"

    def __init__(self, smallest: float = 0.25, largest: float = 0.75) -> None:
        check_range("smallest", smallest, above=0, at_most=1)
        check_range("largest", largest, at_least=smallest, at_most=1)
        self.smallest, self.largest = smallest, largest

    def make(self, image: Tensor) -> Tensor:
        """Cut a hole into each."""
        is_hole = torch.ones_like(image[:, :1], dtype=torch.bool)
        for axis in (2, 3):
            length = image.shape[axis]
            share = self.smallest + (self.largest - self.smallest) * torch.rand(len(image), device=image.device)
            side = (share * length).round().clamp(min=1)
            start = (torch.rand_like(side) * (length - side + 1)).floor()
            place = torch.arange(length, device=image.device)
            inside = (place >= start[:, None]) & (place < (start + side)[:, None])
            is_hole = is_hole & inside.view(len(image), 1, *((length, 1) if axis == 2 else (1, length)))
        return self.given(image, ~is_hole)

    def given(self, image: Tensor, known: Tensor) -> Tensor:
        """Return y of images (B, C, H, W) of which only what is ``known`` (B, 1, H, W), boolean, is to be used."""
        known = known.expand(len(image), 1, *image.shape[2:])
        return torch.cat([torch.where(known, image, 0), known.to(image.dtype)], dim=1)

    def given_channels(self, image_channels: int) -> int:
        """Return those of the image, and one of what is known."""
        return image_channels + 1

    def baseline(self, y: Tensor) -> Tensor:
        """Return the image with gray in the hole."""
        return y[:, :-1]


def luma(image: Tensor) -> Tensor:
    """Return the brightness (..., 1, H, W) of colours (..., 3, H, W), as ITU-R 601 and PIL have it."""
    weights = image.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (weights * image).sum(dim=-3, keepdim=True)


def refuse_images(condition: Condition | None, model: str) -> None:
    """Refuse a condition that is an image, where networks take vectors alone.

    Raises:
        ValueError: It names the condition.
    """
    if isinstance(condition, ImageCondition):
        own = type(condition).__name__
        raise ValueError(f"condition={own}: a {model} is told classes, attributes or vectors; take a DDPM for images")
