"""A run that was stopped and resumed ends in exactly the state of one that was not."""

import functools
from collections.abc import Callable

import lightning as L
import pytest
from resuming import BATCHES, EPOCHS, assert_halves, assert_resumes
from torch.optim.lr_scheduler import OneCycleLR

from lit_generative import VAE

MakeTrainer = Callable[..., L.Trainer]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_equals_unbroken_bit_for_bit(
    make_vae: Callable[..., VAE], make_trainer: MakeTrainer, accumulate: int
) -> None:
    def make() -> VAE:
        model = make_vae()
        # a schedule that needs the length of the training asks for the loader before its place is restored
        model.make_lr_scheduler = functools.partial(OneCycleLR, max_lr=5e-3)
        return model

    stops = {1: (4, 7), 2: (2, 3)}[accumulate]  # at the end of the first epoch, and in the middle of the second
    end = assert_resumes(make, make_trainer, stops, accumulate_grad_batches=accumulate)
    assert end["global_step"] == EPOCHS * BATCHES // accumulate
    assert end["lit_generative"]["state"]["images_seen"] == EPOCHS * BATCHES * 25


def test_two_halves_equal_the_whole(make_vae: Callable[..., VAE], make_trainer: MakeTrainer) -> None:
    assert_halves(make_vae, make_trainer)
