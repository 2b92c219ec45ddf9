"""What is to be shown of a latent space, and the images, classes and noises that it is shown with."""

import dataclasses
from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor

from lit_generative.checks import check_count
from lit_generative.contracts import Batch, ImageData, Split
from lit_generative.core import GenerativeModule
from lit_generative.labels import Labels, class_indices
from lit_generative.sampling import check_is_of_classes

__all__ = ["LatentRequest", "Selection"]

CANDIDATES = 500  # images among which those that are shown are chosen


@dataclasses.dataclass(frozen=True)
class LatentRequest:
    """What is to be shown.

    Attributes:
        num_images: Rows of each picture.
        steps: Images of each path.
        seed: Decides which images and noises are shown.
        labels: Classes of the rows by index or name, repeated in turn; by default all of them.
        split: The images that are shown, and whose latents are tabulated.
        max_images: At most so many images of a split are encoded for the table, the map and the numbers.
    """

    num_images: int = 8
    steps: int = 10
    seed: int = 0
    labels: Labels | None = None
    split: Split = "test"
    max_images: int = 10_000

    def __post_init__(self) -> None:
        check_count("num_images", self.num_images)
        check_count("steps", self.steps, at_least=2)
        check_count("seed", self.seed, at_least=0)
        check_count("max_images", self.max_images, at_least=20)


class Selection:
    """The images, labels and random numbers of one request.

    Args:
        model: What is looked at.
        data: Where real images come from; None: there are none.
        request: Which of them.
    """

    def __init__(self, model: GenerativeModule, data: ImageData | None, request: LatentRequest) -> None:
        check_is_of_classes(model, "latent")
        self.model, self.data, self.request = model, data, request
        count, names = (None, None) if data is None else (data.num_classes, data.class_names)
        self.labels = class_indices(request.labels, model.num_classes or count, names)

    def generator(self) -> torch.Generator:
        """Return the source of a picture's noise, always in the same state."""
        return torch.Generator(self.model.device).manual_seed(self.request.seed)

    def classes(self) -> Tensor | None:
        """Return the classes of the rows of new images, (n,); None for a model without classes."""
        if self.model.num_classes is None:
            return None
        classes = torch.tensor(self.labels or list(range(self.model.num_classes)), device=self.model.device)
        return classes[torch.arange(self.request.num_images, device=self.model.device) % len(classes)]

    def batches(self, split: Split, limit: int) -> Iterable[Batch]:
        """Return the first images of a split.

        Raises:
            ValueError: If there are no images at all.
        """
        if self.data is None:
            raise ValueError("data=None, but real images are to be shown: give data (--data ImageDataModule)")
        return self.data.loader(split, limit=limit)

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images (n, C, H, W), as many others, and for a model of classes the labels (n,) of both.

        For other models, the two of a pair are of two classes: more is to be seen between them.
        """
        n = self.request.num_images
        x_0, y = self._choose(n, self.labels)
        if self.model.num_classes is None:
            return x_0, self._choose(n + 1, self.labels)[0][1:], None
        return x_0, self._choose(2 * n, [] if y is None else y.tolist())[0][n:], y

    def _choose(self, n: int, labels: list[int] | None) -> tuple[Tensor, Tensor | None]:
        """Return ``n`` real images, with their classes in turn if they have any, and their labels."""
        batches = list(self.batches(self.request.split, CANDIDATES))
        images = torch.cat([batch["image"] for batch in batches])
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.request.seed))
        if "label" not in batches[0]:
            if labels:
                raise ValueError(f"labels={labels}: the images have no labels, leave them out")
            return images[order[torch.arange(n) % len(order)]].to(self.model.device), None
        of_images = torch.cat([batch["label"] for batch in batches])
        present = of_images.unique().tolist()
        if absent := set(labels or present) - set(present):
            raise ValueError(f"labels={labels}: {min(absent)} is none of the images' classes, which are {present}")
        classes = ((labels or present) * n)[:n]
        of_class = {k: order[of_images[order] == k].tolist() for k in set(classes)}
        picks = [of_class[k][classes[:i].count(k) % len(of_class[k])] for i, k in enumerate(classes)]
        return images[picks].to(self.model.device), of_images[picks].to(self.model.device)
