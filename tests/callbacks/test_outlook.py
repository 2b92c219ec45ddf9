"""A training says what it is about, and how long it takes by a pace that was measured."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lit_generative import VAE, ImageDataModule
from lit_generative.callbacks import Outlook, outlook


class Streamed(IterableDataset):
    """Images whose number nobody knows."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.rand(30, 1, 28, 28) * 2 - 1)


class Clock(L.Callback):
    """A clock that work makes go on."""

    seconds = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds += 2

    def on_validation_batch_end(self, *_: Any) -> None:
        self.seconds += 100


@pytest.fixture
def told(
    make_vae: Callable[..., VAE],
    make_trainer: Callable[..., L.Trainer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> Callable[..., list[str]]:
    """Train with a clock that a batch takes two seconds of, and a validation a hundred; return what was printed."""

    def train(data: Any = None, **options: Any) -> list[str]:
        clock = Clock()
        monkeypatch.setattr(outlook, "monotonic", lambda: clock.seconds)
        trainer = make_trainer(callbacks=[clock, Outlook()], **({"max_epochs": 2, "limit_val_batches": 0} | options))
        trainer.fit(make_vae(), ImageDataModule(subset=60, batch_size=6) if data is None else data)
        return [line for line in capsys.readouterr().out.splitlines() if "VAE: " in line or "steps" in line]

    return train


def test_it_says_what_is_trained_and_how_long_it_takes(told: Callable[..., list[str]], make_vae: Callable) -> None:
    first, left = told()
    parameters = sum(p.numel() for p in make_vae().parameters())
    assert first == f"VAE: {parameters:,} parameters, 60 training images, 20 steps, on cpu"
    # two steps of warm-up, five in ten seconds: thirteen steps are left
    assert left == "about 26 s of training left at 0.5 steps/s; validation and evaluation come on top"


def test_validation_is_not_counted_as_pace(told: Callable[..., list[str]]) -> None:
    without, with_validation = told(), told(limit_val_batches=1, val_check_interval=4)
    assert "0.5 steps/s" in without[1]
    assert "0.5 steps/s" in with_validation[1]


def test_accumulated_batches_are_one_step(told: Callable[..., list[str]]) -> None:
    first, left = told(accumulate_grad_batches=2, max_epochs=4)
    assert ", 20 steps, " in first
    assert "at 0.25 steps/s" in left


@pytest.mark.parametrize(
    ("options", "steps"), [({"max_epochs": -1, "max_steps": 12}, "12 steps"), ({"limit_train_batches": 8}, "16 steps")]
)
def test_steps_are_those_that_will_be_taken(told: Callable[..., list[str]], options: dict, steps: str) -> None:
    assert f", {steps}, on cpu" in told(**options)[0]


def test_time_is_the_limit_where_it_comes_first(told: Callable[..., list[str]]) -> None:
    limit = {"max_epochs": -1, "max_time": timedelta(hours=2), "limit_train_batches": 10}
    first, left = told(**limit, max_steps=15)
    assert ", 15 steps, " in first
    assert left.startswith("about 16 s of training left")
    first, left = told(**limit | {"max_time": timedelta(seconds=5)}, max_steps=10_000)
    assert left.startswith("5 s left, by trainer.max_time, at 0.5 steps/s")


def test_data_of_unknown_length_are_no_reason_for_a_guess(told: Callable[..., list[str]]) -> None:
    first, left = told(DataLoader(Streamed(), batch_size=3))
    assert "training images of unknown number, as many steps as 2 epochs have" in first
    assert left == "0.5 steps/s; how many are left is not known"


def test_a_training_that_is_over_at_once_is_not_measured(told: Callable[..., list[str]]) -> None:
    assert len(told(max_steps=3, max_epochs=-1)) == 1


@pytest.mark.parametrize(("seconds", "words"), [(8, "8 s"), (80, "80 s"), (100, "1.7 min"), (9000, "2.5 h")])
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert outlook.duration(seconds) == words
