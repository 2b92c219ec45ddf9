"""Augmentation of training images that does not leak into samples: the network is told of it."""

from math import inf
from typing import ClassVar

from torch import Tensor

from lit_generative.checks import check_range
from lit_generative.description import Described
from lit_generative.geometry import NUMBERS, draw_affine, warp
from lit_generative.nn.conditions import Condition
from lit_generative.nn.image_conditions import ImageCondition

__all__ = ["ConditionalAugment"]

_BY_SIZE = ((500, 0.3), (5_000, 0.12), (50_000, 0.06))
_PASSES = (30, 100)  # over the set, between which the chance rises: images that are new teach more as they are


class ConditionalAugment(Described):
    """Mirrors, scales, turns, stretches and shifts images, and tells the network so (Karras et al. 2022, appendix F.2).

    The network gets nine numbers beside the noisy image, which are 0 where nothing was done. They are 0 in sampling,
    validation and likelihoods: there the model is one of images as they are. Labels stay.

    Args:
        probability: The chance of each part of a map, in [0, 1]; theirs is 0.12 to 0.15. None: by the training set's
            size, up to 0.3 below 500 images, 0.12 below 5,000, 0.06 below 50,000, and 0 from there on. It is 0 until
            each image was seen thirty times, rises from there, and is full after a hundred.

    Attributes:
        numbers: How many numbers the network gets; its ``augmentations``.
        chance: The highest probability, 0 before it is chosen.
    """

    numbers: ClassVar[int] = NUMBERS

    def __init__(self, probability: float | None = None) -> None:
        check_range("probability", probability, at_least=0, at_most=1, hint="null chooses it by the set's size")
        self.probability = probability
        self.chance = probability or 0.0
        self.num_images: int | None = None

    def check(self, condition: Condition | None) -> None:
        """Refuse a condition that is an image, which would stay where its picture is moved.

        Raises:
            ValueError: It names the condition.
        """
        if isinstance(condition, ImageCondition):
            name = type(condition).__name__
            raise ValueError(
                f"augment={type(self).__name__}: it moves images, and {name} would stay as it is; leave augment out"
            )

    def settle(self, num_images: int | None) -> None:
        """Choose the probability for a set of so many training images (None: very many); one that was given stays."""
        self.num_images = num_images
        if self.probability is None:
            total = inf if num_images is None else num_images
            self.chance = next((chance for limit, chance in _BY_SIZE if total < limit), 0.0)

    def at(self, images_seen: int) -> float:
        """Return the chance after so many training images."""
        if self.probability is not None or not self.num_images:
            return self.chance
        start, end = _PASSES
        return self.chance * min(max(images_seen / self.num_images - start, 0) / (end - start), 1)

    def plan(self) -> str:
        """Say what is done to images, and how often."""
        if not self.chance:
            why = "as the set's size asks" if self.probability is None else "as augment.probability says"
            return f"not at all, {why}"
        start, end = _PASSES
        rising = f" at most, after {start} passes more and more up to {end}, as the set's size asks"
        how = rising if self.probability is None else ", as augment.probability says"
        return (
            f"each of mirrored, turned, scaled, stretched and moved with the chance {self.chance:g}{how}; "
            "the network is told, samples show none of it"
        )

    def __call__(self, x: Tensor, images_seen: int = 0) -> tuple[Tensor, Tensor]:
        """Return augmented images (B, C, H, W) in the range of ``x``, and their numbers (B, 9).

        Args:
            x: The images.
            images_seen: Training images before these.
        """
        matrix, numbers = draw_affine(x, self.at(images_seen))
        return warp(x, matrix), numbers
