"""Points of the plane, drawn from mixtures of Gaussians: the data on which mode collapse can be seen and counted."""

import functools
import hashlib
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lit_generative.checks import check_count, check_range
from lit_generative.contracts import Split
from lit_generative.data.loaders import ResumableLoader, SplitLoaders
from lit_generative.data.samplers import Picks, SequentialBatches, ShuffledBatches

__all__ = ["GaussianGrid", "GaussianPoints", "GaussianRing"]

_LEAST = 1e-6  # a length that float32 still resolves in [-1, 1]
_ROOM = 5  # standard deviations between a centre and the border; one draw in millions is farther out, and clipped


class _Points(Dataset):
    """Points (N, 2) and their modes (N,) as a dataset that gives whole batches."""

    def __init__(self, points: np.ndarray, labels: np.ndarray) -> None:
        self.points = points
        self.labels = labels

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, picks: Picks) -> dict[str, Tensor]:
        """Return the batch of the points in ``picks``."""
        points, labels = self.points[picks.index, :, None, None], self.labels[picks.index]
        return {"image": torch.from_numpy(points), "label": torch.from_numpy(labels)}


class GaussianPoints(SplitLoaders):
    """Draws from a mixture of equally likely, isotropic Gaussians in the plane, handed out as images of one pixel.

    A batch is a dict with ``image`` (B, 2, 1, 1), float32, x and y in [-1, 1], and ``label`` (B,), int64, the modes. So
    a model of images is a model of points if its networks take the shape (2, 1, 1). In an evaluation the features are
    the points themselves, and the metrics ``modes`` and ``high_quality`` are added: see
    :class:`~lit_generative.evaluation.points.PointsExtractor`.

    A subclass gives :meth:`centres`. They are asked for by this constructor, so it sets what they depend on before.

    Args:
        scale: The standard deviation of each coordinate about the centre.
        batch_size: Points a training or evaluation batch and process.
        num_train: Training points.
        num_test: Validation points, and as many test points.
        seed: Decides which points are drawn, and the order of the training points.

    Raises:
        ValueError: If an argument has no meaning, or the points would leave [-1, 1].
    """

    def __init__(
        self, scale: float, batch_size: int = 256, num_train: int = 50_000, num_test: int = 2000, seed: int = 0
    ) -> None:
        super().__init__()
        self.scale, self.batch_size, self.seed = scale, batch_size, seed
        self.num_train, self.num_test = num_train, num_test
        for name, least in {"batch_size": 1, "num_train": 1, "num_test": 1, "seed": 0}.items():
            check_count(name, getattr(self, name), at_least=least, optional=False)
        check_range("scale", scale, at_least=_LEAST, optional=False)
        if self._reach() + _ROOM * scale > 1:
            raise ValueError(
                f"scale={scale} about centres as far out as {self._reach():.3g} leaves [-1, 1]: {_ROOM} standard "
                "deviations must fit; lower scale, or move the centres in"
            )

    @abstractmethod
    def centres(self) -> np.ndarray:
        """The means of the Gaussians, (K, 2), in the order of the labels."""

    def _reach(self) -> float:
        return float(np.abs(self.centres()).max())

    @property
    def name(self) -> str:  # type: ignore[override]
        """A short name for reports: that of the class."""
        return type(self).__name__

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels (x and y), height and width of every "image"."""
        return (2, 1, 1)

    @property
    def num_classes(self) -> int:
        """The number of modes, K."""
        return len(self.centres())

    @property
    def class_names(self) -> list[str]:
        """What the modes are called, in the order of the labels."""
        return [f"mode {i}" for i in range(self.num_classes)]

    def num_images(self, split: Split) -> int:
        """The number of points in ``train``, ``val`` or ``test``."""
        return len(self._split(split))

    def fingerprint(self, split: Split, limit: int | None = None) -> str:
        """A hex digest of the points in :meth:`loader` and of their modes."""
        points = self._split(split)
        return hashlib.sha256(points.points[:limit].tobytes() + points.labels[:limit].tobytes()).hexdigest()

    def protocol(self, split: Split) -> dict[str, Any]:
        """What should accompany a number measured on ``split``, as plain data."""
        return {
            "dataset": self.name,
            "split": split,
            "num_images": self.num_images(split),
            "num_modes": self.num_classes,
            "centres_reach": self._reach(),
            "scale": self.scale,
            "seed": self.seed,
        }

    @functools.cached_property
    def _drawn(self) -> dict[str, _Points]:
        sizes = {"train": self.num_train, "val": self.num_test, "test": self.num_test}
        return {split: self._draw(i, size) for i, (split, size) in enumerate(sizes.items())}

    def _draw(self, stream: int, size: int) -> _Points:
        rng = np.random.default_rng((self.seed, stream, 1))  # the samplers have (seed, epoch)
        centres = self.centres()
        labels = rng.integers(len(centres), size=size)
        points = centres[labels] + self.scale * rng.standard_normal((size, 2))
        return _Points(points.clip(-1, 1).astype(np.float32), labels)

    def _split(self, split: str) -> _Points:
        if split not in self._drawn:
            raise ValueError(f"split={split!r} is none of {', '.join(self._drawn)}")
        return self._drawn[split]

    def training_loader(self) -> DataLoader:
        """Shuffled training points; the loader can resume in the middle of an epoch."""
        points = self._split("train")
        sampler = ShuffledBatches(len(points), self.batch_size, seed=self.seed)
        return ResumableLoader(points, batch_size=None, sampler=sampler)

    def loader(self, split: Split, *, batch_size: int | None = None, limit: int | None = None) -> DataLoader:
        """Points for evaluation: in a fixed order, and of several processes each gets its own share.

        Args:
            split: ``train``, ``val`` or ``test``.
            batch_size: Points a batch and process; by default the data module's.
            limit: Take so many points, the first ones, which are a fair draw: they have no order.
        """
        check_count("batch_size", batch_size)
        check_count("limit", limit)
        points = self._split(split)
        sampler = SequentialBatches(np.arange(len(points))[:limit], batch_size or self.batch_size)
        return DataLoader(points, batch_size=None, sampler=sampler)


class GaussianRing(GaussianPoints):
    """Gaussians evenly spaced on a circle about the origin, the first one at (radius, 0).

    The defaults are the ring of the literature, scaled into [-1, 1]: eight modes whose standard deviation is a
    hundredth of the radius (Unrolled GAN, Metz et al. 2017, arXiv:1611.02163, appendix A: 0.02 and 2; VEEGAN,
    Srivastava et al. 2017, arXiv:1705.07761, and PacGAN, Lin et al. 2018, arXiv:1712.04086: 0.01 and 1).

    Args:
        num_modes: How many Gaussians.
        radius: The circle's radius.
        scale: The standard deviation of each coordinate about the centre.
        batch_size: Points a training or evaluation batch and process.
        num_train: Training points.
        num_test: Validation points, and as many test points.
        seed: Decides which points are drawn, and the order of the training points.
    """

    def __init__(
        self,
        num_modes: int = 8,
        radius: float = 0.8,
        scale: float = 0.008,
        batch_size: int = 256,
        num_train: int = 50_000,
        num_test: int = 2000,
        seed: int = 0,
    ) -> None:
        self.num_modes, self.radius = num_modes, radius
        check_count("num_modes", num_modes, optional=False)
        check_range("radius", radius, at_least=_LEAST, optional=False)
        super().__init__(scale, batch_size, num_train, num_test, seed)

    def centres(self) -> np.ndarray:
        """The means of the Gaussians, (num_modes, 2), counter-clockwise."""
        angle = 2 * np.pi * np.arange(self.num_modes) / self.num_modes
        return self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


class GaussianGrid(GaussianPoints):
    """Gaussians on a square grid about the origin.

    The defaults are the grid of the literature (VEEGAN, PacGAN: see :class:`GaussianRing`), 25 modes at -4, -2, 0, 2
    and 4 in both coordinates with the standard deviation 0.05, scaled into [-1, 1].

    Args:
        side: Gaussians along each side; there are side^2.
        extent: Half the grid's width: the outermost centres are at -extent and extent.
        scale: The standard deviation of each coordinate about the centre.
        batch_size: Points a training or evaluation batch and process.
        num_train: Training points.
        num_test: Validation points, and as many test points.
        seed: Decides which points are drawn, and the order of the training points.
    """

    def __init__(
        self,
        side: int = 5,
        extent: float = 0.8,
        scale: float = 0.01,
        batch_size: int = 256,
        num_train: int = 50_000,
        num_test: int = 2000,
        seed: int = 0,
    ) -> None:
        self.side, self.extent = side, extent
        check_count("side", side, at_least=2, optional=False)
        check_range("extent", extent, at_least=_LEAST, optional=False)
        super().__init__(scale, batch_size, num_train, num_test, seed)

    def centres(self) -> np.ndarray:
        """The means of the Gaussians, (side^2, 2), row by row from the lower left."""
        ticks = np.linspace(-self.extent, self.extent, self.side)
        y, x = np.meshgrid(ticks, ticks, indexing="ij")
        return np.stack([x.ravel(), y.ravel()], axis=1)
