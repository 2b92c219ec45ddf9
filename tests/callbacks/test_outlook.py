"""A training says what it is about, and how long it takes by a pace that was measured."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lit_generative import DDPM, VAE, ImageDataModule
from lit_generative.callbacks import Budget, Outlook, TrainingClock, plan
from lit_generative.diffusion import ConditionalAugment
from lit_generative.gan import AdaptiveAugment, ComposedAugment, DiffAugment, GeometricAugment
from lit_generative.nn import UNet


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
        for module in ("outlook", "clock"):
            monkeypatch.setattr(f"lit_generative.callbacks.{module}.monotonic", lambda: clock.seconds)
        callbacks = [clock, *options.pop("callbacks_too", ()), Outlook()]
        trainer = make_trainer(callbacks=callbacks, **({"max_epochs": 2, "limit_val_batches": 0} | options))
        trainer.fit(make_vae(), ImageDataModule(subset=60, batch_size=6) if data is None else data)
        return capsys.readouterr().out.splitlines()

    return train


def line(lines: list[str], start: str) -> str:
    """Return the one line that starts so."""
    (found,) = [line.strip() for line in lines if line.strip().startswith(start)]
    return found


def test_it_says_what_is_planned_and_how_long_it_takes(told: Callable[..., list[str]], make_vae: Callable) -> None:
    lines = told()
    parameters = sum(p.numel() for p in make_vae().parameters())
    assert lines[0] == "The plan: VAE on fashion-mnist"
    assert line(lines, "found").startswith("found     60 training images (1,000 val, 2,000 test), 28x28 pixels")
    assert f" {parameters:,} parameters on cpu" in line(lines, "network")
    assert line(lines, "training") == "training  20 steps of 6 images, 120 in all, 2 passes over the set"
    assert "near copies" in line(lines, "expect")
    assert "too short: 120 images" in line(lines, "too short")
    assert len(lines[: lines.index(next(text for text in lines if text.startswith("about")))]) <= 12
    # two steps of warm-up, five in ten seconds: thirteen steps are left
    assert line(lines, "about").startswith("about 26 s of training left at 0.5 steps/s; validation and evaluation come")
    assert lines[-1] == "Seen: 120 images, 2 passes over 60."


def test_minutes_become_steps_and_passes_by_the_pace(told: Callable[..., list[str]], monkeypatch: Any) -> None:
    lines = told(max_epochs=-1, callbacks_too=[Budget(minutes=2), TrainingClock()])
    assert line(lines, "training").startswith("training  2 min; steps and passes over the set follow from the pace")
    # of a step, two seconds: sixty of them
    assert line([text for text in lines if "passes" in text and "about" in text], "about").startswith("about 6")
    assert "passes over 60 in 2.0 min of training" in lines[-1]


def test_validation_is_not_counted_as_pace(told: Callable[..., list[str]]) -> None:
    without, with_validation = told(), told(limit_val_batches=1, val_check_interval=4)
    assert "0.5 steps/s" in line(without, "about")
    assert "0.5 steps/s" in line(with_validation, "about")


def test_accumulated_batches_are_one_step(told: Callable[..., list[str]]) -> None:
    lines = told(accumulate_grad_batches=2, max_epochs=4)
    assert "20 steps of 12 images" in line(lines, "training")
    assert "at 0.25 steps/s" in line(lines, "about")


@pytest.mark.parametrize(
    ("options", "steps"), [({"max_epochs": -1, "max_steps": 12}, "12 steps"), ({"limit_train_batches": 8}, "16 steps")]
)
def test_steps_are_those_that_will_be_taken(told: Callable[..., list[str]], options: dict, steps: str) -> None:
    assert f"training  {steps} of" in line(told(**options), "training")


def test_time_is_the_limit_where_it_comes_first(told: Callable[..., list[str]]) -> None:
    limit = {"max_epochs": -1, "max_time": timedelta(hours=2), "limit_train_batches": 10}
    assert line(told(**limit, max_steps=15), "about").startswith("about 16 s of training left")
    lines = told(**limit | {"max_time": timedelta(seconds=5)}, max_steps=10_000)
    assert line(lines, "5 s").startswith("5 s left, by trainer.max_time, at 0.5 steps/s")


def test_data_of_unknown_length_are_no_reason_for_a_guess(told: Callable[..., list[str]]) -> None:
    lines = told(DataLoader(Streamed(), batch_size=3))
    assert line(lines, "found") == "found     training images of unknown number"
    assert line(lines, "training") == "training  as many steps as 2 epochs have"
    assert "0.5 steps/s; how many are left is not known" in lines
    assert not any("random_flip" in text or "expect" in text for text in lines)


def test_a_training_that_is_over_at_once_is_not_measured(told: Callable[..., list[str]]) -> None:
    assert not any("steps/s" in text for text in told(max_steps=3, max_epochs=-1))


@pytest.mark.parametrize(
    ("course", "words"),
    [
        ([9, 7, 5, 4, 3.5, 3], "val/loss was still getting better: too short"),
        ([9, 4, 3, 3, 3, 3], "val/loss had stopped getting better"),
        ([9, 4, 3, 4, 5, 6], "val/loss got worse again: 3 at its best, 6 in the end."),
        ([9, 4, 3, 3.2, 3.1, 3.3], "val/loss had stopped getting better"),
        ([3, 4, 5, 6], "val/loss did not get better"),
        ([-9, -12, -14, -16], "still getting better"),
        ([9, 3], "."),
    ],
)
def test_what_came_of_it_goes_by_the_last_third(make_trainer: Any, course: list[float], words: str) -> None:
    assert plan.outcome(make_trainer(), 1000, None, "val/loss", course).endswith(words) or words in plan.outcome(
        make_trainer(), 1000, None, "val/loss", course
    )


@pytest.mark.parametrize(
    ("augment", "words"),
    [
        (ConditionalAugment(), "with the chance 0.3 at most, after 30 passes more and more up to 100"),
        (ConditionalAugment(0.2), "with the chance 0.2, as augment.probability says"),
        (ConditionalAugment(0.0), "not at all"),
    ],
)
def test_the_plan_says_how_images_are_augmented(
    make_trainer: Any, capsys: pytest.CaptureFixture, augment: ConditionalAugment, words: str
) -> None:
    network = UNet((1, 28, 28), (8, 16), 1, (), head_dim=8, groups=4, patch=4, augmentations=9)
    model = DDPM(network, (1, 28, 28), augment=augment)
    make_trainer(max_steps=1, callbacks=[Outlook()]).fit(model, ImageDataModule(subset=60, batch_size=6))
    assert words in line(capsys.readouterr().out.splitlines(), "augmented")


def test_the_plan_says_what_the_discriminator_sees(
    make_gan: Any, make_trainer: Any, capsys: pytest.CaptureFixture
) -> None:
    augmentation = ComposedAugment([GeometricAugment(), DiffAugment()])
    model = make_gan(augment=AdaptiveAugment(augmentation, limit=0.7))
    make_trainer(max_steps=2, callbacks=[Outlook()]).fit(model, ImageDataModule(subset=60, batch_size=6))
    told = line(capsys.readouterr().out.splitlines(), "augmented")
    by = "by GeometricAugment and DiffAugment"
    assert f"{by}, as often as its overfitting asks, with a chance of at most 0.7" in told


@pytest.mark.parametrize(("seconds", "words"), [(8, "8 s"), (80, "80 s"), (100, "1.7 min"), (9000, "2.5 h")])
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert plan.duration(seconds) == words
