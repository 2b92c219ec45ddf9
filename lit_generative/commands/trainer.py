"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI's own commands."""

from functools import partial

from lit_generative.training.cli import TrainerCLI

__all__ = ["fit", "predict", "test", "validate"]

fit, validate, test, predict = (partial(TrainerCLI, command) for command in ("fit", "validate", "test", "predict"))
