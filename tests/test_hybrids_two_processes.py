"""Two processes train the hybrids that one process trains on their joined batches."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from noiseless import NoiselessVAE
from processes import JOINED, SHAPE, fit, run_in_two
from torch import Tensor

from lit_generative import DDPM, GenerativeModule
from lit_generative.diffusion import CosineSchedule, Latents, VelocityPrediction
from lit_generative.gan import R1
from lit_generative.nn import (
    CodeTransformer,
    MLPDecoder,
    MLPEncoder,
    PatchDiscriminator,
    SpatialDecoder,
    SpatialEncoder,
    UNet,
)
from lit_generative.vae import VAEGAN, VQVAE, Adversary, Codebook, GaussianLikelihood

STEPS = 4
Found = dict[str, dict[str, Any]]


class NoiselessVAEGAN(VAEGAN, NoiselessVAE):
    """A VAE/GAN whose losses are functions of images and weights alone."""


class JoinedDDPM(DDPM):
    """Draws the times and noise of the joined batch of all processes, and takes its own part of them."""

    def sample_time(self, n: int) -> tuple[Tensor, Tensor]:
        t = torch.rand(n * self.trainer.world_size, generator=self.source())
        return self.own(t), torch.ones(n)

    def losses_at(self, t: Tensor, x: Tensor, noise: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        joined = torch.randn(len(x) * self.trainer.world_size, *self.state_shape, generator=self.source())
        return super().losses_at(t, x, self.own(joined), y)

    def source(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.trainer.global_step)

    def own(self, joined: Tensor) -> Tensor:
        return joined.chunk(self.trainer.world_size)[self.global_rank]


def vaegan() -> GenerativeModule:
    torch.manual_seed(0)
    make = functools.partial(torch.optim.SGD, lr=1e-3)
    game = Adversary(PatchDiscriminator(SHAPE, (4, 8)), penalties=[R1(0.1, every=2)], after_images=0, optimizer=make)
    parts: dict[str, Any] = {"encoder": MLPEncoder(SHAPE, 4, (8,)), "decoder": MLPDecoder(SHAPE, 4, (8,))}
    return NoiselessVAEGAN(**parts, likelihood=GaussianLikelihood(), latent_dim=4, adversary=game, optimizer=make)


def latent_ddpm() -> GenerativeModule:
    """Its latents are a function of the image, so that nothing is drawn for them."""
    torch.manual_seed(0)
    networks = [cls(SHAPE, 4, widths=(4,)) for cls in (SpatialEncoder, SpatialDecoder)]
    prior = CodeTransformer(8, 8, 1, 2)
    latents = Latents(VQVAE(*networks, GaussianLikelihood(), Codebook(8, 4), prior))
    latents.is_fitted.fill_(True)
    network = UNet(latents.shape, (8, 8), 1, (), groups=4)
    optimizer = functools.partial(torch.optim.SGD, lr=0.3)
    return JoinedDDPM(network, SHAPE, CosineSchedule(), VelocityPrediction(), optimizer=optimizer, latents=latents)


MODELS: dict[str, Callable[[], GenerativeModule]] = {"vaegan": vaegan, "latent_ddpm": latent_ddpm}


def train(model: GenerativeModule, rank: int, world_size: int) -> dict[str, Any]:
    """Train, under plain ddp if there are several processes, and return the state reached."""
    trainer = fit(model, rank, world_size, STEPS)
    return {"state": model.state_dict(), "counted": {"step": trainer.global_step, "images_seen": model.images_seen}}


def run(rank: int, folder: str) -> None:
    torch.save({name: train(make(), rank, 2) for name, make in MODELS.items()}, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    folder: Path = tmp_path_factory.mktemp("processes")
    run_in_two(run, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", MODELS)
def test_both_processes_have_the_weights_of_one(found: list[Found], name: str) -> None:
    alone = train(MODELS[name](), 0, 1)
    assert alone["counted"] == {"step": STEPS, "images_seen": STEPS * JOINED}
    start = MODELS[name]().state_dict()
    assert max((alone["state"][key].float() - value.float()).abs().max() for key, value in start.items()) > 1e-3
    for process in found:
        assert process[name]["counted"] == alone["counted"]
        torch.testing.assert_close(process[name]["state"], alone["state"], rtol=1e-4, atol=1e-5)
    for key, value in found[0][name]["state"].items():
        assert torch.equal(value, found[1][name]["state"][key]), key
