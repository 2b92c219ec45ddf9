"""What is measured of real images once, for all models: their spectrum, their nearest training images, and features."""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_generative.contracts import ImageData, Split
from lit_generative.evaluation import Evaluator, Neighbours, copied, nearest_neighbours, radial_spectrum
from lit_generative.evaluation.memorisation import copies_in_features
from lit_generative.evaluation.reference import real_features
from lit_generative.pictures import are_points, picture, tile

__all__ = ["MOST_IMAGES", "RealImages", "draw_pictures"]

MOST_IMAGES = 2000  # that spectra and neighbours are of: more would change their errors of some percent, but take long
MOST_TRAINING = 10_000  # training images whose features copies are looked for among
_SAMPLES, _PAIRS = 36, 12


@dataclasses.dataclass
class RealImages:
    """What is measured of real images once, for all models.

    Attributes:
        data: Where the training images come from.
        images: Those of the evaluator's split, at most 2,000, (N, C, H, W).
        spectrum: Their radial spectrum, (K,); None of points of the plane.
        neighbours: The training images nearest to them; None of points, where to be near means no copying.
        mirrored: The same of their mirror images.
        features: Those of the images, in the evaluator's extractor, (N, D); None of points.
        training: Those of at most 10,000 training images.
        floor: What the real images themselves reach in the metrics of pixels and of copies; {} of points.
    """

    data: ImageData
    images: Tensor
    spectrum: Tensor | None = None
    neighbours: Neighbours | None = None
    mirrored: Neighbours | None = None
    features: Tensor | None = None
    training: Tensor | None = None
    floor: dict[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, data: ImageData, evaluator: Evaluator) -> "RealImages":
        """Read and measure the images that an evaluator compares with."""
        limit = min(evaluator.num_real or MOST_IMAGES, MOST_IMAGES)
        images = torch.cat([batch["image"] for batch in data.loader(evaluator.split, batch_size=250, limit=limit)])
        real = cls(data, images)
        if not are_points(images):
            real.spectrum = radial_spectrum(images)
            real.neighbours, real.mirrored = real.nearest(images)
            real.features = _features(evaluator, data, evaluator.split, limit)
            real.training = _features(evaluator, data, "train", MOST_TRAINING)
            real.floor = _floor(real.neighbours, real.mirrored, real.features, real.training) | {"train_gap": 0.0}
        return real

    @classmethod
    def of_one_set(cls, data: ImageData, evaluator: Evaluator) -> "RealImages":
        """Measure real images that samples may be copies of, too; their own floor is that of one half in the other."""
        limit = min(evaluator.num_real or MOST_IMAGES, MOST_IMAGES)
        images = torch.cat([batch["image"] for batch in data.loader(evaluator.split, batch_size=250, limit=limit)])
        real = cls(data, images, radial_spectrum(images))
        real.training = _features(evaluator, data, evaluator.split, evaluator.num_real)[:MOST_TRAINING]
        first, second = slice(0, None, 2), slice(1, None, 2)
        real.neighbours = nearest_neighbours(images[second], [images[first]])
        real.mirrored = nearest_neighbours(images[second].flip(-1), [images[first]])
        features = real.training[: len(images)]
        real.floor = _floor(real.neighbours, real.mirrored, features[second], features[first])
        return real

    def nearest(self, images: Tensor) -> tuple[Neighbours, Neighbours]:
        """Return the training images nearest to others (N, C, H, W), and nearest to their mirror images."""
        both = torch.cat([images, images.flip(-1)])
        found = nearest_neighbours(both, (batch["image"] for batch in self.data.loader("train", batch_size=1000)))
        first, second = slice(0, len(images)), slice(len(images), None)
        return tuple(Neighbours(found.distances[part], found.images[part]) for part in (first, second))  # type: ignore[return-value]


def _floor(neighbours: Neighbours, mirrored: Neighbours, features: Tensor, training: Tensor) -> dict[str, float]:
    share = float(copied(neighbours, mirrored).double().mean())
    floor = {"sharpness": 1.0, "memorised": share, "nearest": 1.0}
    if len(training) < 2:
        return floor
    return floor | {name: float(values.mean()) for name, values in copies_in_features(features, training).items()}


def _features(evaluator: Evaluator, data: ImageData, split: Split, limit: int | None) -> Tensor:
    extractor = evaluator.extractor_for(data)
    return real_features(extractor, data, split, limit, evaluator.cache, progress=True)[1]["features"].cpu()


def draw_pictures(
    images: Tensor, neighbours: Neighbours | None, mirrored: Neighbours | None = None
) -> dict[str, Tensor]:
    """Draw ``samples``, the first 36 of images (N, C, H, W), and ``nearest``, the first 12 with what they are near to.

    Those are framed in white, six a row: an image, and below it the nearest training image, mirrored where that is
    nearer.
    """
    pictures = {"samples": picture(images[:_SAMPLES])}
    if neighbours is not None:
        nearest = neighbours.images
        if mirrored is not None:
            is_nearer = mirrored.distances[:, 0] < neighbours.distances[:, 0]
            nearest = torch.where(is_nearer[:, None, None, None], mirrored.images.flip(-1), nearest)
        pairs = torch.stack([images, nearest], dim=1)[:_PAIRS]  # (M, 2, C, H, W)
        framed = torch.stack([F.pad(tile(pair, columns=1), (2, 2, 2, 2), value=1) for pair in pairs])
        pictures["nearest"] = tile(framed, columns=min(len(pairs), 6))
    return pictures
