"""Every source of images behind one data module; the embedded Fashion-MNIST subset; mixtures of Gaussians."""

from lit_generative.data.adapter import image_data
from lit_generative.data.binarise import Binarisation, DynamicBinarisation, StaticBinarisation
from lit_generative.data.module import ImageDataModule
from lit_generative.data.points import GaussianGrid, GaussianPoints, GaussianRing
