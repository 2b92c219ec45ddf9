"""Fixtures that several test modules share: real images, small models, and trainers that leave nothing behind."""

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_generative import VAE, ImageDataModule
from lit_generative.gan import GAN, RelativisticLoss
from lit_generative.nn import DCGANDiscriminator, DCGANGenerator, MLPDecoder, MLPDiscriminator, MLPEncoder, MLPGenerator
from lit_generative.vae import GaussianLikelihood

# several tests run at a time, each on a core of its own, and so do the processes that they start
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep caches of real statistics and runs out of the home folder, and never reach for the network."""
    monkeypatch.setenv("LIT_GENERATIVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")


@pytest.fixture
def data() -> ImageDataModule:
    """A few hundred images of the embedded set."""
    return ImageDataModule(subset=500, batch_size=50)


@pytest.fixture
def make_vae() -> Callable[..., VAE]:
    """Make a small VAE of 28x28 grayscale images, always with the same weights."""

    def make(cls: type[VAE] = VAE, num_classes: int | None = None) -> VAE:
        torch.manual_seed(0)
        return cls(
            encoder=MLPEncoder((1, 28, 28), 8, hidden=(64,), num_classes=num_classes),
            decoder=MLPDecoder((1, 28, 28), 8, hidden=(64,), num_classes=num_classes),
            likelihood=GaussianLikelihood(),
            latent_dim=8,
            num_classes=num_classes,
            optimizer=functools.partial(torch.optim.Adam, lr=1e-3),
        )

    return make


@pytest.fixture
def make_gan() -> Callable[..., GAN]:
    """Make a small GAN of 28x28 grayscale images, always with the same weights."""

    def make(cls: type[GAN] = GAN, num_classes: int | None = None, convolutions: bool = False, **options: Any) -> GAN:
        torch.manual_seed(0)
        shape, classes = (1, 28, 28), {"num_classes": num_classes}
        generator: torch.nn.Module = MLPGenerator(shape, 8, hidden=(32,), **classes)
        discriminator: torch.nn.Module = MLPDiscriminator(shape, hidden=(32,), **classes)
        if convolutions:  # with batch normalisation here and spectral normalisation there
            generator = DCGANGenerator(shape, 8, widths=(4, 8), **classes)
            discriminator = DCGANDiscriminator(shape, widths=(4, 8), batch_norm=False, spectral_norm=True, **classes)
        arguments = {
            "generator": generator,
            "discriminator": discriminator,
            "loss": RelativisticLoss(),
            "latent_dim": 8,
        }
        return cls(**(arguments | classes | options))

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Make a quiet trainer that writes into the test's own folder."""

    def make(**options: object) -> L.Trainer:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        quiet |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "use_distributed_sampler": False}
        return L.Trainer(**({"accelerator": "cpu", "default_root_dir": tmp_path} | quiet | options))

    return make
