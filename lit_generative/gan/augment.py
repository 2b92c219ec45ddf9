"""Augmentations that both real and generated images go through before the discriminator sees them.

They are differentiable (twice, for the penalties), since the generator learns through them. Images are (B, C, H, W),
normally in [-1, 1]; augmented ones may leave that range. Each image has its own random draws, from torch's global
generator, and no image is handled by a loop.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.geometry import draw_affine, warp

__all__ = [
    "AdaptiveAugment",
    "Augmentation",
    "ComposedAugment",
    "DiffAugment",
    "GeometricAugment",
    "InstanceNoiseAugment",
]

Transform = Callable[[Tensor, Tensor], Tensor]
"""From images (B, C, H, W) and which of them to transform, booleans (B, 1, 1, 1), to images of the same shape."""


def chosen(x: Tensor, probability: float | Tensor) -> Tensor:
    """Draw which images are transformed, booleans (B, 1, 1, 1)."""
    return torch.rand(len(x), 1, 1, 1, device=x.device) < probability


def uniform(x: Tensor, low: float, high: float) -> Tensor:
    """Draw a number per image, (B, 1, 1, 1), of the images' type."""
    return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(low, high).to(x.dtype)


def brightness(x: Tensor, is_chosen: Tensor) -> Tensor:
    """Add a number in [-1/2, 1/2]."""
    return x + uniform(x, -0.5, 0.5) * is_chosen


def saturation(x: Tensor, is_chosen: Tensor) -> Tensor:
    """Scale the distance of a pixel's channels to their mean by a number in [0, 2], which leaves gray images alone."""
    return x if x.shape[1] == 1 else x.mean(1, keepdim=True).lerp(x, uniform(x, 0, 2).where(is_chosen, 1))


def contrast(x: Tensor, is_chosen: Tensor) -> Tensor:
    """Scale the distance of all pixels and channels to their common mean by a number in [1/2, 3/2]."""
    return x.mean((1, 2, 3), keepdim=True).lerp(x, uniform(x, 0.5, 1.5).where(is_chosen, 1))


def translation(x: Tensor, is_chosen: Tensor) -> Tensor:
    """Move by up to 1/8 of the height and of the width, rounded to whole pixels; zeros move in."""
    limits = [int(size / 8 + 0.5) for size in x.shape[2:]]
    down, right = (torch.randint(-limit, limit + 1, (len(x),), device=x.device) for limit in limits)
    return translate(x, down * is_chosen.flatten(), right * is_chosen.flatten())


def cutout(x: Tensor, is_chosen: Tensor) -> Tensor:
    """Zero a rectangle of half the height and width; its centre is anywhere, so the edges may cut it off."""
    sides = [int(size / 2 + 0.5) for size in x.shape[2:]]
    ends = [size + 1 - side % 2 for size, side in zip(x.shape[2:], sides, strict=True)]
    top, left = (torch.randint(end, (len(x),), device=x.device) - s // 2 for end, s in zip(ends, sides, strict=True))
    return x.masked_fill(rectangle(x, top, left, *sides) & is_chosen, 0)


def translate(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move each image (B, C, H, W) by so many pixels, integers (B,); zeros move in."""
    height, width = x.shape[2:]
    rows = (torch.arange(height, device=x.device) - down[:, None]) % height  # (B, H), what comes to be there
    columns = (torch.arange(width, device=x.device) - right[:, None]) % width  # (B, W)
    # reading each pixel once, the gradient writes each once: fast, and the same each time
    source = (rows[:, None, :, None] * width + columns[:, None, None, :]).expand(-1, x.shape[1], -1, -1)
    rolled = x.flatten(2).gather(2, source.flatten(2)).view(x.shape)
    return rolled.where(rectangle(x, down, right, height, width), 0)


def rectangle(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Return which pixels are in each image's rectangle, booleans (B, 1, H, W); ``top`` and ``left`` are (B,)."""
    rows = torch.arange(x.shape[2], device=x.device) - top[:, None]
    columns = torch.arange(x.shape[3], device=x.device) - left[:, None]
    is_row, is_column = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    return is_row[:, None, :, None] & is_column[:, None, None, :]


class Augmentation(Described, nn.Module, ABC):
    """A random, differentiable map of images that may follow the training's course."""

    @abstractmethod
    def forward(self, x: Tensor, probability: float | Tensor = 1.0) -> Tensor:
        """Augment images.

        Args:
            x: Images (B, C, H, W).
            probability: With which each transform is applied to each image, in [0, 1], times the augmentation's own.

        Returns:
            Images of the same shape and type.
        """

    def observe(self, margins: Tensor, num_images: int) -> None:
        """Take note of a step of the discriminator; by default nothing happens.

        Args:
            margins: By how much the real logits exceed the loss's boundary, or those of fakes if it has none, (B,).
            num_images: How many real images the step saw, over all processes.
        """

    def plan(self) -> str:
        """Say what is done, for the plan before a training."""
        return f"what the discriminator sees, real and generated images alike, by {self.name}"

    @property
    def name(self) -> str:
        """What it is called in the plan."""
        return type(self).__name__


class DiffAugment(Augmentation):
    """Random colours, translations and cutouts (Zhao et al. 2020, DiffAugment).

    Args:
        policy: What is done, in this order, out of ``transforms``: "color" (brightness, saturation and contrast),
            "translation" (zeros, which are mid-gray, move in) and "cutout".
        probability: With which each image undergoes each of them, drawn independently.

    Attributes:
        transforms: What each word of a policy stands for. A subclass may add its own.

    Raises:
        ValueError: If the policy is empty or has an unknown word, or ``probability`` is not in [0, 1].
    """

    transforms: ClassVar[dict[str, tuple[Transform, ...]]] = {
        "color": (brightness, saturation, contrast),
        "translation": (translation,),
        "cutout": (cutout,),
    }

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout"), probability: float = 1.0) -> None:
        super().__init__()
        if not policy or not set(policy) <= set(self.transforms):
            raise ValueError(f"policy={policy!r}: it must be a list of some of {', '.join(self.transforms)}")
        check_range("probability", probability, at_least=0, at_most=1)
        self.policy = tuple(policy)
        self.probability = probability

    def forward(self, x: Tensor, probability: float | Tensor = 1.0) -> Tensor:
        """Apply the policy to (B, C, H, W)."""
        for word in self.policy:
            for transform in self.transforms[word]:
                x = transform(x, chosen(x, self.probability * probability))
        return x


class GeometricAugment(Augmentation):
    """Scales, turns, stretches and shifts images, with what was reflected at their edges (Karras et al. 2020, app. B).

    Args:
        probability: The chance of each of them.
        mirror: Whether half of the images so chosen are mirrored left to right, too. At most 0.8 of images are turned
            or mirrored without a trace in samples (their section 2.2): of all images, nobody knows which way is up.
    """

    def __init__(self, probability: float = 1.0, mirror: bool = False) -> None:
        super().__init__()
        check_range("probability", probability, at_least=0, at_most=1)
        self.probability, self.mirror = probability, mirror

    def forward(self, x: Tensor, probability: float | Tensor = 1.0) -> Tensor:
        """Map (B, C, H, W)."""
        matrix, _ = draw_affine(x, self.probability * probability, mirror=self.mirror, upside_down=False)
        return warp(x, matrix)


class AdaptiveAugment(Augmentation):
    """Applies another augmentation with a probability p that follows the discriminator's overfitting (ADA).

    r_t = E[sign(margin)] over the real images of the last few steps is 0 where the discriminator cannot tell them from
    generated ones, and 1 where it is sure of all (Karras et al. 2020, "Training generative adversarial networks with
    limited data", eq. 1). p rises while r_t > ``target`` and falls otherwise.

    With several processes, ``mean_sign`` is to be averaged over them after each step: it moves p only in the next one,
    so that p is the same everywhere.

    Args:
        augmentation: What is applied with probability p.
        target: The r_t that is aimed at, in (0, 1).
        horizon: Real images in which p goes from 0 to 1 if it only rises.
        limit: The largest p. Theirs is 1; up to 0.8 what was augmented does not leak into samples (section 2.2).

    Attributes:
        raised: p * ``horizon``, in images; an integer, so that small steps are not lost in a low precision.
        mean_sign: r_t, as a running mean in which a batch has the weight 1/4.

    Raises:
        ValueError: If ``target`` is not in (0, 1), ``limit`` not in (0, 1] or ``horizon`` is below 1.
    """

    def __init__(
        self, augmentation: Augmentation, target: float = 0.6, horizon: int = 500_000, limit: float = 1.0
    ) -> None:
        super().__init__()
        check_range("target", target, above=0, below=1)
        check_range("limit", limit, above=0, at_most=1)
        check_count("horizon", horizon)
        self.augmentation = augmentation
        self.target = target
        self.horizon = horizon
        self.limit = limit
        self.raised = nn.Buffer(torch.tensor(0))
        self.mean_sign = nn.Buffer(torch.tensor(0.0))

    @property
    def probability(self) -> Tensor:
        """The probability p, a scalar in [0, 1]."""
        return self.raised / self.horizon

    def forward(self, x: Tensor, probability: float | Tensor = 1.0) -> Tensor:
        """Apply the augmentation to (B, C, H, W) with probability p."""
        return self.augmentation(x, self.probability * probability)

    @torch.no_grad()
    def observe(self, margins: Tensor, num_images: int) -> None:
        """Move p by ``num_images / horizon`` up or down, then add the batch's mean sign to r_t."""
        step = torch.where(self.mean_sign > self.target, num_images, -num_images)
        self.raised.add_(step).clamp_(0, int(self.limit * self.horizon))
        self.mean_sign.lerp_(margins.sign().to(self.mean_sign.dtype).mean(), 0.25)
        self.augmentation.observe(margins, num_images)

    def plan(self) -> str:
        """Say how often images are changed."""
        often = f"as often as its overfitting asks, with a chance of at most {self.limit:g}"
        return f"{self.augmentation.plan()}, {often}"

    def begin_anew(self, model: Any) -> None:
        """Begin without augmentation."""
        self.raised.zero_()
        self.mean_sign.zero_()


class InstanceNoiseAugment(Augmentation):
    """x + N(0, scale^2 I), so that the two distributions overlap (Sønderby et al. 2017; Arjovsky & Bottou 2017).

    Args:
        scale: The standard deviation, in units of x in [-1, 1].
        until: Real images after which there is no noise any more; it decays linearly. None: it stays.

    Raises:
        ValueError: If ``scale`` is not positive or ``until`` is below 1.
    """

    def __init__(self, scale: float = 0.1, until: int | None = None) -> None:
        super().__init__()
        check_range("scale", scale, above=0, hint="to have no noise, leave it out")
        check_count("until", until, hint="null for ever")
        self.scale = scale
        self.until = until
        self.seen = nn.Buffer(torch.tensor(0))  # real images

    def forward(self, x: Tensor, probability: float | Tensor = 1.0) -> Tensor:
        """Add noise to (B, C, H, W)."""
        left = 1.0 if self.until is None else (1 - self.seen / self.until).clamp(min=0)
        return x + torch.randn_like(x) * (self.scale * left) * chosen(x, probability)

    @torch.no_grad()
    def observe(self, margins: Tensor, num_images: int) -> None:
        """Count the images."""
        self.seen.add_(num_images)

    def begin_anew(self, model: Any) -> None:
        """Begin with all of the noise."""
        self.seen.zero_()


class ComposedAugment(Augmentation):
    """Several augmentations, one after the other."""

    def __init__(self, augmentations: Sequence[Augmentation]) -> None:
        super().__init__()
        self.augmentations = nn.ModuleList(augmentations)

    def forward(self, x: Tensor, probability: float | Tensor = 1.0) -> Tensor:
        """Apply all to (B, C, H, W)."""
        for augmentation in self.augmentations:
            x = augmentation(x, probability)
        return x

    def observe(self, margins: Tensor, num_images: int) -> None:
        """Pass it on to all."""
        for augmentation in self.augmentations:
            augmentation.observe(margins, num_images)  # type: ignore[operator]

    @property
    def name(self) -> str:
        """Their names."""
        return " and ".join(str(augmentation.name) for augmentation in self.augmentations)
