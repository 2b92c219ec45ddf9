"""Samples and their nearest training images, as pictures for the report."""

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lit_generative.pictures import are_points, picture, tile, to_uint8
from lit_generative.report.theme import LIGHT, WIDTH, Look, plain

__all__ = ["GRIDS", "REAL_IMAGES", "Grid", "Pictures", "png"]

REAL_IMAGES = "real images"  # under which name write_report gets them


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Images of one model.

    Attributes:
        samples: Some (N, C, H, W) in [-1, 1], from the same seed for each model.
        nearest: Samples and the training images nearest to them, (M, 2, C, H, W) in [-1, 1]; None: not searched.
    """

    samples: Tensor
    nearest: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Grid:
    """A kind of picture that each model has one of.

    Attributes:
        name: The file's name.
        title: What it is about.
        caption: How to read it.
        make: Returns a model's picture (C, H', W') in [-1, 1]; None where there is none.
        absent: Why there is none of any model.
    """

    name: str
    title: str
    caption: str
    make: Callable[[Pictures], Tensor | None]
    absent: str

    def pictures(self, pictures: dict[str, Pictures]) -> dict[str, Tensor]:
        """Return the picture of each model that has one, real images first."""
        names = sorted(pictures, key=lambda name: name != REAL_IMAGES)
        made = {name: self.make(pictures[name]) for name in names}
        return {name: image for name, image in made.items() if image is not None}

    def figure(self, pictures: dict[str, Pictures]) -> Figure | None:
        """Return all models' pictures side by side, for a file; None where there are none."""
        made = self.pictures(pictures)
        if not made:
            return None
        columns = min(len(made), 3)
        rows = -(-len(made) // columns)
        shape = next(iter(made.values())).shape
        figure = Look.of(made, LIGHT).figure(rows * (WIDTH / columns * shape[1] / shape[2] + 0.4))
        cells = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes in cells:
            axes.set_axis_off()
        for axes, (name, image) in zip(cells, made.items(), strict=False):
            axes.imshow(pixels(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(plain(name), fontsize=10.5, color=LIGHT.ink)
        return figure


def _samples(pictures: Pictures) -> Tensor:
    return picture(pictures.samples)


def _nearest(pictures: Pictures) -> Tensor | None:
    """Pairs beside each other, four a row: a sample above its nearest training image, a white frame around both."""
    if pictures.nearest is None or are_points(pictures.nearest[:, 0]):
        return None
    pairs = torch.stack([tile(pair, columns=1) for pair in pictures.nearest])  # (M, C, 2 H + 2, W)
    return tile(F.pad(pairs, (2, 2, 2, 2), value=1), columns=min(len(pairs), 6))


def pixels(image: Tensor) -> NDArray[np.uint8]:
    """Return an image (1 or 3, H, W) in [-1, 1] as (H, W) or (H, W, 3) of 8 bit."""
    image = to_uint8(image).cpu()
    return image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()


def png(image: Tensor) -> bytes:
    """Return an image (1 or 3, H, W) in [-1, 1] as a PNG file of its own size."""
    target = io.BytesIO()
    Image.fromarray(pixels(image)).save(target, "PNG")
    return target.getvalue()


GRIDS = (
    Grid(
        "samples",
        "Samples",
        "Drawn by each model from the same seed, none of them chosen.",
        _samples,
        "no samples were kept",
    ),
    Grid(
        "nearest",
        "Nearest training images",
        "In each frame a sample, and below it the training image that is nearest to it pixel by pixel. A model that "
        "draws copies of its training images shows the same image twice.",
        _nearest,
        "no nearest training images were searched",
    ),
)
