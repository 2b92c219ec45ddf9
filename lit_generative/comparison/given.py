"""Images from anywhere as the real ones of an evaluation: folders, archives, data sets, or what a checkpoint draws."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_generative.contracts import Batch, Split
from lit_generative.core import GenerativeModule
from lit_generative.data import ImageDataModule
from lit_generative.evaluation.identity import content_digest, content_sum
from lit_generative.evaluation.too_few import LEAST_IMAGES, TooFewImagesError
from lit_generative.processes import rank_and_world
from lit_generative.sampling import check_is_of_classes

__all__ = ["GivenImages", "Source", "draw", "is_checkpoint"]

_MIXED = 64  # pixels of the shorter side, where images of different sizes are given and no size is asked for
_SHARE = 0.4  # for splits, which are put together again: so large that few images can be split
_SPLITS: tuple[Split, ...] = ("train", "val", "test")


def is_checkpoint(source: str) -> bool:
    """Whether a source is a file of a model rather than images."""
    return Path(source).suffix == ".ckpt"


@dataclasses.dataclass(frozen=True)
class Source:
    """Where images are: a folder, an archive, a data set of the hub, or an embedded one; all of its splits.

    Attributes:
        dataset: As :class:`~lit_generative.data.ImageDataModule` takes it.
    """

    dataset: str

    def shape(self) -> tuple[tuple[int, int, int], bool]:
        """Return channels, height and width of its images, and whether they are of several sizes (then 64 x 64).

        Raises:
            FileNotFoundError: If there is no such file or folder.
            ValueError: If there are no images that can be read.
        """
        try:
            return self._data(None, None).image_shape, False
        except ValueError:  # of several sizes; or else the same error comes again
            pass
        try:
            return self._data(_MIXED, None).image_shape, True
        except ValueError as error:
            raise ValueError(f"{self.dataset}: {error}") from None

    def read(self, size: int | None, channels: int) -> Tensor:
        """Return its images, (N, C, H, W) in [-1, 1].

        Args:
            size: The shorter side is resized to it and the centre cut out; None: as they are.
            channels: 1 or 3.

        Raises:
            TooFewImagesError: If there are fewer than six.
            ValueError: If an image cannot be read, or the sizes differ and ``size`` is None.
        """
        data = self._data(size, channels)
        try:
            images = torch.cat([batch["image"] for split in _SPLITS for batch in data.loader(split, batch_size=500)])
        except ValueError as error:
            raise ValueError(f"{self.dataset}: {error}") from None
        if len(images) < LEAST_IMAGES:
            raise TooFewImagesError(
                f"{self.dataset} has {len(images)} images, and a comparison needs at least {LEAST_IMAGES}"
            )
        return images

    def _data(self, size: int | None, channels: int | None) -> ImageDataModule:
        if Path(self.dataset).suffix and not Path(self.dataset).exists():
            raise FileNotFoundError(f"{self.dataset}: there is no such file or folder")
        kind: Any = channels or "auto"
        return ImageDataModule(self.dataset, image_size=size, channels=kind, on_error="skip", val_fraction=_SHARE)


def draw(model: GenerativeModule, n: int, seed: int, batch_size: int = 250) -> Tensor:
    """Return n samples of a model on the CPU, of labels in equal numbers if it has any, (n, C, H, W) in [-1, 1]."""
    check_is_of_classes(model, "evaluate")
    generator = torch.Generator(model.device).manual_seed(seed)
    found = []
    for start in range(0, n, batch_size):
        count = min(batch_size, n - start)
        labels = torch.arange(start, start + count, device=model.device)
        y = None if model.num_classes is None else labels % model.num_classes
        found.append(model.sample(count, y, generator=generator).clamp(-1, 1).cpu())
    return torch.cat(found)


@dataclasses.dataclass(frozen=True)
class GivenImages:
    """Images as :class:`~lit_generative.contracts.ImageData` without labels; validation and test images are the same.

    Attributes:
        name: What they are called.
        images: The real ones, (N, C, H, W) in [-1, 1].
        training: Those that samples may be copies of.
        resizing: How they became what they are, in words.
    """

    name: str
    images: Tensor
    training: Tensor
    resizing: str
    num_classes: int | None = None
    class_names: list[str] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def _of(self, split: Split) -> Tensor:
        return self.training if split == "train" else self.images

    def num_images(self, split: Split) -> int:
        """The number of images in a split."""
        return len(self._of(split))

    def loader(self, split: Split, *, batch_size: int | None = None, limit: int | None = None) -> Iterable[Batch]:
        """This process's share of the first ``limit`` images, in batches."""
        rank, world = rank_and_world()
        return [{"image": part} for part in self._of(split)[:limit][rank::world].split(batch_size or 250)]

    def fingerprint(self, split: Split, limit: int | None = None) -> str:
        """A digest of the images themselves."""
        images = self._of(split)[:limit]
        return content_digest([content_sum(images)], len(images), self.image_shape)

    def protocol(self, split: Split) -> dict[str, Any]:
        """What should accompany a number measured on a split."""
        return {
            "dataset": self.name,
            "split": split,
            "num_images": self.num_images(split),
            "image_shape": list(self.image_shape),
            "resizing": self.resizing,
        }
