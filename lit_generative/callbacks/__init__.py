"""Callbacks for any GenerativeModule, usable in YAML and in Python."""

from lit_generative.callbacks.clock import TrainingClock
from lit_generative.callbacks.compile import Compile
from lit_generative.callbacks.ema import EMA
from lit_generative.callbacks.evaluate import Evaluate
from lit_generative.callbacks.interrupt import SaveOnInterrupt
from lit_generative.callbacks.last import LastCheckpoint
from lit_generative.callbacks.likelihood import EstimateLikelihood
from lit_generative.callbacks.progress import ImagesProgressBar
from lit_generative.callbacks.samples import SampleGrid, SampleWriter
from lit_generative.diffusion.denoising_pictures import DenoisingPictures
from lit_generative.gan.health import GANHealth

__all__ = [
    "EMA",
    "Compile",
    "DenoisingPictures",
    "EstimateLikelihood",
    "Evaluate",
    "GANHealth",
    "ImagesProgressBar",
    "LastCheckpoint",
    "SampleGrid",
    "SampleWriter",
    "SaveOnInterrupt",
    "TrainingClock",
]
