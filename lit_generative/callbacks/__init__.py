"""Callbacks for any GenerativeModule, usable in YAML and in Python."""

from lit_generative.callbacks.clock import Clock
from lit_generative.callbacks.denoising import Denoising
from lit_generative.callbacks.ema import EMA
from lit_generative.callbacks.evaluate import Evaluate
from lit_generative.callbacks.health import GANHealth
from lit_generative.callbacks.interrupt import SaveOnInterrupt
from lit_generative.callbacks.last import LastCheckpoint
from lit_generative.callbacks.likelihood import Likelihood
from lit_generative.callbacks.progress import ImagesProgressBar
from lit_generative.callbacks.samples import SampleGrid, SampleWriter

__all__ = [
    "EMA",
    "Clock",
    "Denoising",
    "Evaluate",
    "GANHealth",
    "ImagesProgressBar",
    "LastCheckpoint",
    "Likelihood",
    "SampleGrid",
    "SampleWriter",
    "SaveOnInterrupt",
]
