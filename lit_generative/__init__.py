"""VAE, GAN and diffusion models of images in PyTorch Lightning, with one data module and one honest evaluation."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_generative.comparison.evaluate import evaluate_samples
    from lit_generative.core import GenerativeModule
    from lit_generative.data import ImageDataModule
    from lit_generative.description import Described
    from lit_generative.diffusion import DDPM
    from lit_generative.evaluation import Evaluator
    from lit_generative.gan import GAN
    from lit_generative.vae import VAE

__all__ = [
    "DDPM",
    "GAN",
    "VAE",
    "Described",
    "Evaluator",
    "GenerativeModule",
    "ImageDataModule",
    "__version__",
    "evaluate_samples",
]

__version__ = "0.1.0"

_HOMES = {
    "DDPM": "diffusion",
    "GAN": "gan",
    "VAE": "vae",
    "Described": "description",
    "Evaluator": "evaluation",
    "GenerativeModule": "core",
    "ImageDataModule": "data",
    "evaluate_samples": "comparison.evaluate",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch and Lightning take seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
