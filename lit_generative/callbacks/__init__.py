"""Callbacks for any GenerativeModule, usable in YAML and in Python; those of a family are in its folder."""

from lit_generative.callbacks.budget import Budget
from lit_generative.callbacks.clock import TrainingClock
from lit_generative.callbacks.compile import Compile
from lit_generative.callbacks.ema import EMA
from lit_generative.callbacks.evaluate import Evaluate
from lit_generative.callbacks.interrupt import SaveOnSignal
from lit_generative.callbacks.last import LastCheckpoint
from lit_generative.callbacks.likelihood import EstimateLikelihood
from lit_generative.callbacks.outlook import Outlook
from lit_generative.callbacks.pictures import PictureCallback
from lit_generative.callbacks.power_ema import PowerEMA, reconstruct
from lit_generative.callbacks.progress import ImagesProgressBar
from lit_generative.callbacks.samples import SampleGrid, SampleWriter
