"""A game that was stopped and resumed ends in exactly the state of one that was not."""

import functools
from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
from resuming import BATCHES, EPOCHS, assert_halves, assert_resumes
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR

from lit_generative.gan import GAN, R1, R2, AdaptiveAugment, DiffAugment

MakeGAN = Callable[..., GAN]
MakeTrainer = Callable[..., L.Trainer]
CONVOLUTIONS = {
    "convolutions": True,  # with batch normalisation and spectral normalisation, which have buffers
    "generator_lr_scheduler": functools.partial(OneCycleLR, max_lr=5e-3),
    "discriminator_lr_scheduler": functools.partial(ExponentialLR, gamma=0.9),
    "generator_clip": 1.0,
}
PERCEPTRONS = {"discriminator_steps": 2, "micro_batches": 2, "discriminator_clip": 0.1}


@pytest.mark.parametrize("options", [CONVOLUTIONS, PERCEPTRONS], ids=["convolutions", "perceptrons"])
def test_resumed_equals_unbroken_bit_for_bit(
    make_gan: MakeGAN, make_trainer: MakeTrainer, options: dict[str, Any]
) -> None:
    def make() -> GAN:
        augment = AdaptiveAugment(DiffAugment(), horizon=1000)
        augment.raised.fill_(500)  # it goes up or down from here
        return make_gan(penalties=[R1(1.0, every=2), R2(1.0, every=3)], augment=augment, **options)

    stops = (4, 7)  # at the end of the first epoch; in the middle of the second, where no penalty is due
    end = assert_resumes(make, make_trainer, stops, part="generator")
    assert end["global_step"] == EPOCHS * BATCHES
    assert len(end["optimizer_states"]) == 2
    assert end["state_dict"]["augment.raised"] not in (0, 500)  # so its state mattered


def test_two_halves_equal_the_whole(make_gan: MakeGAN, make_trainer: MakeTrainer) -> None:
    assert_halves(functools.partial(make_gan, penalties=[R1(1.0, every=2)], discriminator_steps=3), make_trainer)
