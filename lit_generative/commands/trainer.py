"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI's own commands."""

from lit_generative.training.cli import TrainerCLI
from lit_generative.training.spellings import spelled

__all__ = ["fit", "predict", "test", "validate"]


def fit(arguments: list[str]) -> None:
    """Train a model."""
    TrainerCLI("fit", spelled("fit", arguments))


def validate(arguments: list[str]) -> None:
    """Measure the losses on the validation split."""
    TrainerCLI("validate", spelled("validate", arguments))


def test(arguments: list[str]) -> None:
    """Measure the losses and the samples' quality on the test split."""
    TrainerCLI("test", spelled("test", arguments))


def predict(arguments: list[str]) -> None:
    """Draw one sample per test image."""
    TrainerCLI("predict", spelled("predict", arguments))
