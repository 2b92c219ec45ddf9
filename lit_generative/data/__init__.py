"""Every source of images behind one data module; the embedded Fashion-MNIST subset."""

from lit_generative.data.module import ImageDataModule

__all__ = ["ImageDataModule"]
