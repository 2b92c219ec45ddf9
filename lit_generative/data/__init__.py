"""Every source of images behind one data module; the embedded Fashion-MNIST subset."""

from .module import ImageDataModule

__all__ = ["ImageDataModule"]
