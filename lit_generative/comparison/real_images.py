"""What is measured of real images' pixels, for all models: their spectrum and their nearest training images."""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_generative.contracts import ImageData
from lit_generative.evaluation import Evaluator, Neighbours, nearest_neighbours, radial_spectrum
from lit_generative.pictures import are_points, picture, tile

__all__ = ["MOST_IMAGES", "RealImages", "draw_pictures"]

MOST_IMAGES = 2000  # that spectra and neighbours are of: more would change their errors of some percent, but take long
_SAMPLES, _PAIRS = 36, 12


@dataclasses.dataclass
class RealImages:
    """What is measured of real images once, for all models.

    Attributes:
        data: Where the training images come from.
        images: Those of the evaluator's split, at most 2,000, (N, C, H, W).
        spectrum: Their radial spectrum, (K,); None of points of the plane.
        neighbours: The training images nearest to them; None of points, where to be near means no copying.
    """

    data: ImageData
    images: Tensor
    spectrum: Tensor | None = None
    neighbours: Neighbours | None = None

    @classmethod
    def of(cls, data: ImageData, evaluator: Evaluator) -> "RealImages":
        """Read and measure the images that an evaluator compares with."""
        limit = min(evaluator.num_real or MOST_IMAGES, MOST_IMAGES)
        images = torch.cat([batch["image"] for batch in data.loader(evaluator.split, batch_size=250, limit=limit)])
        real = cls(data, images)
        if not are_points(images):
            real.spectrum, real.neighbours = radial_spectrum(images), real.nearest(images)
        return real

    def nearest(self, images: Tensor) -> Neighbours:
        """Return the training images nearest to others (N, C, H, W)."""
        return nearest_neighbours(images, (batch["image"] for batch in self.data.loader("train", batch_size=1000)))

    @property
    def floor(self) -> dict[str, float]:
        """What the real images themselves reach in the metrics of pixels; {} of points."""
        return {} if self.neighbours is None else {"sharpness": 1.0, "memorised": self.neighbours.rate, "nearest": 1.0}


def draw_pictures(images: Tensor, neighbours: Neighbours | None) -> dict[str, Tensor]:
    """Draw ``samples``, the first 36 of images (N, C, H, W), and ``nearest``, the first 12 with what they are near to.

    Those are framed in white, six a row: an image, and below it the nearest training image.
    """
    pictures = {"samples": picture(images[:_SAMPLES])}
    if neighbours is not None:
        pairs = torch.stack([images, neighbours.images], dim=1)[:_PAIRS]  # (M, 2, C, H, W)
        framed = torch.stack([F.pad(tile(pair, columns=1), (2, 2, 2, 2), value=1) for pair in pairs])
        pictures["nearest"] = tile(framed, columns=min(len(pairs), 6))
    return pictures
