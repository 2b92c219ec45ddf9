"""Pictures of all models beside one another: their samples, and those samples' nearest training images."""

import dataclasses
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from lit_generative.report.results import Comparison
from lit_generative.report.theme import LIGHT, REAL_IMAGES, WIDTH, Theme, plain

__all__ = ["GALLERIES", "Gallery", "side_by_side"]


@dataclasses.dataclass(frozen=True)
class Gallery:
    """A kind of picture that each model has one of.

    Attributes:
        name: What it is called in ``Run.pictures``; also the file's name.
        title: What it is about.
        caption: How to read it.
        absent: Why there is none of any model.
    """

    name: str
    title: str
    caption: str
    absent: str

    def files(self, comparison: Comparison, folder: Path) -> dict[str, Path]:
        """Return the picture of real images and of each model's first run, as far as there are any."""
        first = {name: runs[0].pictures for name, runs in comparison.by_name().items()}
        shown = {REAL_IMAGES: comparison.pictures} | first
        return {name: folder / pictures[self.name] for name, pictures in shown.items() if self.name in pictures}


def side_by_side(files: dict[str, Path]) -> Figure:
    """Return PNG files by their models' names as one figure."""
    pictures = {name: np.asarray(Image.open(path)) for name, path in files.items()}  # (H, W) or (H, W, 3)
    columns = min(len(pictures), 3)
    rows = -(-len(pictures) // columns)
    height, width = next(iter(pictures.values())).shape[:2]
    figure = Theme.of(pictures, LIGHT).figure(rows * (WIDTH / columns * height / width + 0.4))
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in cells:
        axes.set_axis_off()
    for axes, (name, pixels) in zip(cells, pictures.items(), strict=False):
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(plain(name), fontsize=10.5, color=LIGHT.ink)
    return figure


GALLERIES = (
    Gallery(
        "samples",
        "Samples",
        "Drawn by each model from the same seed, none of them chosen.",
        "no samples were kept",
    ),
    Gallery(
        "nearest",
        "Nearest training images",
        "In each frame a sample, and below it the training image that is nearest to it pixel by pixel. A model that "
        "draws copies of its training images shows the same image twice.",
        "no nearest training images were searched",
    ),
)
