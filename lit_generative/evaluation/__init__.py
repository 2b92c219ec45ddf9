"""How good a model's samples are: feature extractors, metrics, and the protocol that makes numbers comparable."""

from lit_generative.evaluation.features import Extractor, load_extractor
from lit_generative.evaluation.protocol import Evaluation, Evaluator

__all__ = ["Evaluation", "Evaluator", "Extractor", "load_extractor"]
