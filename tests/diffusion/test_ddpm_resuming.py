"""A DDPM that was stopped and resumed ends in exactly the state of one that was not."""

import functools
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from resuming import BATCHES, EPOCHS, assert_halves, assert_resumes
from torch.optim.lr_scheduler import OneCycleLR

from lit_generative import DDPM
from lit_generative.diffusion import (
    DDIM,
    ClassifierFree,
    CosineSchedule,
    LearnedVariance,
    LossAwareTimes,
    StratifiedTimes,
    VelocityPrediction,
)
from lit_generative.nn import UNet

SHAPE = (1, 28, 28)
MakeTrainer = Callable[..., L.Trainer]


def build(output_multiple: int = 1, **options: Any) -> DDPM:
    torch.manual_seed(0)
    network = UNet(SHAPE, (8, 16), 1, (), None, 4, 0.1, 10, patch=4, output_multiple=output_multiple)
    options |= {"num_classes": 10, "guidance": ClassifierFree(2.0, label_dropout=0.3), "sampler": DDIM(2)}
    return DDPM(network, SHAPE, CosineSchedule(), VelocityPrediction(), **options)


def test_resumed_equals_unbroken_bit_for_bit(make_trainer: MakeTrainer) -> None:
    def make() -> DDPM:
        schedule = functools.partial(OneCycleLR, max_lr=5e-3)
        variance = LearnedVariance(num_steps=100)
        return build(2, times=LossAwareTimes(num_bins=4, history=2), variance=variance, lr_scheduler=schedule)

    end = assert_resumes(make, make_trainer, (4, 7))  # at the end of the first epoch, in the middle of the second
    assert end["global_step"] == EPOCHS * BATCHES
    assert (end["state_dict"]["times.counts"] >= 4).all()  # so that the times were chosen by the losses


def test_two_halves_equal_the_whole(make_trainer: MakeTrainer) -> None:
    assert_halves(functools.partial(build, times=StratifiedTimes()), make_trainer)
