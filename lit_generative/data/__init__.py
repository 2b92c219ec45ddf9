"""Every source of images behind one data module; the embedded Fashion-MNIST subset; mixtures of Gaussians."""

from lit_generative.data.module import ImageDataModule
from lit_generative.data.points import GaussianGrid, GaussianPoints, GaussianRing

__all__ = ["AnyData", "GaussianGrid", "GaussianPoints", "GaussianRing", "ImageDataModule"]

AnyData = ImageDataModule | GaussianPoints
"""What an evaluation takes."""
