"""Two processes play the game that one process plays with their joined batches."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import JOINED, SHAPE, fit, run_in_two
from torch import Tensor

from lit_generative.gan import (
    GAN,
    R1,
    R2,
    AdaptiveAugment,
    Augmentation,
    HingeLoss,
    InstanceNoiseAugment,
    RelativisticLoss,
)
from lit_generative.nn import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator

ROUNDS = 4
Found = dict[str, dict[str, Any]]


class JoinedGAN(GAN):
    """Draws the latents of the joined batch of all processes, and takes its own part of them."""

    def sample_latent(self, n: int) -> Tensor:
        source = torch.Generator().manual_seed(self.trainer.global_step)
        z = torch.randn(n * self.trainer.world_size, self.latent_dim, generator=source)
        return z[self.global_rank * n :][:n]


class BrokenInOneProcess(JoinedGAN):
    """Has a loss that is not finite in the second process alone."""

    def generator_loss(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        loss = super().generator_loss(real, fake, y)
        return loss * float("nan") if self.global_rank == 1 else loss


def perceptrons(cls: type[GAN] = JoinedGAN, **options: Any) -> GAN:
    torch.manual_seed(0)
    make = functools.partial(torch.optim.SGD, lr=0.5, momentum=0.5)
    networks = MLPGenerator(SHAPE, 4, hidden=(16,)), MLPDiscriminator(SHAPE, hidden=(16,))
    penalties = [R1(1.0), R2(1.0, every=2)]
    optimizers = {"generator_optimizer": make, "discriminator_optimizer": make, "generator_clip": 0.1}
    return cls(*networks, RelativisticLoss(), 4, penalties, discriminator_clip=0.5, **optimizers, **options)


def convolutions(spectral_norm: bool, augment: Augmentation | None = None) -> GAN:
    torch.manual_seed(0)
    networks = (
        DCGANGenerator(SHAPE, 4, widths=(4, 8)),
        DCGANDiscriminator(SHAPE, (4, 8), batch_norm=not spectral_norm, spectral_norm=spectral_norm),
    )
    torch.nn.init.constant_(networks[1].head.linear.bias, 0.3)  # or as many real logits are below 0 as above
    return GAN(*networks, HingeLoss(), 4, augment=augment)  # each process draws its own latents


def adaptive() -> AdaptiveAugment:
    augment = AdaptiveAugment(InstanceNoiseAugment(), horizon=1000)
    augment.raised.fill_(500)  # it goes up or down from here
    return augment


GAMES: dict[str, Callable[[], GAN]] = {
    "perceptrons": perceptrons,
    "parts": functools.partial(perceptrons, micro_batches=2, discriminator_steps=2),
    "batch-norm": lambda: convolutions(False, adaptive()),
    "spectral-norm": functools.partial(convolutions, True),
}


def play(model: GAN, rank: int, world_size: int) -> dict[str, Any]:
    """Train, under plain ddp if there are several processes, and return the state reached."""
    trainer = fit(model, rank, world_size, ROUNDS)
    return {"state": model.state_dict(), "step": trainer.global_step, "images_seen": model.images_seen}


def run(rank: int, folder: str) -> None:
    torch.save({name: play(make(), rank, 2) for name, make in GAMES.items()}, f"{folder}/{rank}.pt")
    try:
        play(perceptrons(BrokenInOneProcess), rank, 2)
    except Exception as error:  # no process may be left waiting
        Path(folder, f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    run_in_two(run, folder)
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> list[Found]:
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", ["perceptrons", "parts"])
def test_both_processes_have_the_weights_of_one(found: list[Found], name: str) -> None:
    alone = play(GAMES[name](), 0, 1)
    assert (alone["step"], alone["images_seen"]) == (ROUNDS, ROUNDS * JOINED)
    start = GAMES[name]().state_dict()
    for network in ("generator", "discriminator"):
        moved = [(alone["state"][n] - value).abs().max() for n, value in start.items() if n.startswith(network)]
        assert max(moved) > 1e-2
    for process in found:
        torch.testing.assert_close(process[name], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", GAMES)
def test_both_processes_end_in_the_same_state(found: list[Found], name: str) -> None:
    states = [process[name]["state"] for process in found]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
    start = GAMES[name]().state_dict()
    still = {key for key, value in states[0].items() if torch.equal(value, start[key])}
    # a margin between logits does not depend on their common bias, and the unit vector of a row of weights is a sign
    assert {key for key in still if not key.endswith((".linear.bias", ".linear.parametrizations.weight.0._u"))} == set()


def test_a_loss_that_breaks_in_one_process_ends_both(folder: Path) -> None:
    errors = [(folder / f"{rank}.txt").read_text() for rank in range(2)]
    assert "the generator loss is not finite at step 0" in errors[1]
    assert "Error" in errors[0]
