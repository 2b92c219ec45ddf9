"""How good a model's samples are: feature extractors, metrics, and the protocol that makes numbers comparable."""

from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.features import load_extractor
from lit_generative.evaluation.jackknife import jackknife_errors
from lit_generative.evaluation.memorisation import Neighbours, copied, nearest_neighbours
from lit_generative.evaluation.protocol import Evaluation, Evaluator
from lit_generative.evaluation.spectrum import radial_spectrum, sharpness
from lit_generative.evaluation.too_few import TooFewImagesError
