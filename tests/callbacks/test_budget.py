"""A training of so many minutes or images ends there, whatever the pace, and what follows it stretches to that."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from lit_generative import VAE, ImageDataModule
from lit_generative.budgets import share_of_training
from lit_generative.callbacks import Budget, LastCheckpoint, TrainingClock
from lit_generative.callbacks.budget import number_of_images
from lit_generative.checkpoints import read_checkpoint
from lit_generative.gan import GAN
from lit_generative.optim import OneCycle

MakeTrainer = Callable[..., L.Trainer]
PEAK = 1e-2


class Course(L.Callback):
    """A machine whose pace is known, and what happened at each step.

    Args:
        pace: Seconds of the step of a number, from 0 on.
        validation: Seconds of a validation.
    """

    def __init__(self, pace: Callable[[int], float], validation: float = 500.0) -> None:
        self.now, self.pace, self.validation = 7.0, pace, validation
        self.rates: list[float] = []
        self.shares: list[float | None] = []
        self.validated_at: list[int] = []

    def __call__(self) -> float:
        return self.now

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.now += self.pace(trainer.global_step)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.shares.append(share_of_training(trainer))

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.now += self.validation
        self.validated_at.append(trainer.global_step)


def model_of(make: Callable[..., Any], **options: float) -> Any:
    """Make a VAE or a GAN whose learning rates rise to a peak and fall to a hundredth of it."""
    cycle = functools.partial(OneCycle, **({"pct_start": 0.25, "div_factor": 10, "final_div_factor": 10} | options))
    adam = functools.partial(torch.optim.Adam, lr=PEAK)
    model = make()
    if isinstance(model, GAN):
        model.make_optimizers, model.make_lr_schedulers = (adam, adam), (cycle, cycle)
    else:
        model.make_optimizer, model.make_lr_scheduler = adam, cycle
    return model


@pytest.fixture
def train(
    make_vae: Callable[..., VAE],
    make_gan: Callable[..., GAN],
    make_trainer: MakeTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[L.Trainer, Course]]:
    """Train on a machine of a known pace; return the trainer and the course of it."""

    def run(
        budget: Budget,
        pace: Callable[[int], float] = lambda step: 1.0,
        family: str = "vae",
        ckpt_path: Path | None = None,
        batch_size: int = 20,
        callbacks: tuple[L.Callback, ...] = (),
        validation: float = 500.0,
        **options: Any,
    ) -> tuple[L.Trainer, Course]:
        course = Course(pace, validation)
        for module in ("clock", "budget"):
            monkeypatch.setattr(f"lit_generative.callbacks.{module}.monotonic", course)
        trainer = make_trainer(
            callbacks=[course, TrainingClock(), budget, *callbacks], **({"limit_val_batches": 1} | options)
        )
        model = model_of({"vae": make_vae, "gan": make_gan}[family])
        data = ImageDataModule(subset=60, batch_size=batch_size)
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else True)
        return trainer, course

    return run


Train = Callable[..., tuple[L.Trainer, Course]]
PACES = {
    "steady": lambda step: 1.0,
    "slower from the middle on": lambda step: 1.0 if step < 15 else 2.0,
    "faster from the middle on": lambda step: 1.0 if step < 15 else 0.6,
    "slow at first": lambda step: 9.0 if step == 0 else 1.0,
    "uneven": lambda step: 0.5 if step % 3 else 2.0,
}


@pytest.mark.parametrize(("name", "family"), [*((name, "vae") for name in PACES), ("uneven", "gan")])
def test_minutes_are_kept_at_any_pace_and_the_learning_rate_comes_to_its_end(
    train: Train, name: str, family: str
) -> None:
    trainer, course = train(Budget(minutes=0.5), PACES[name], family)
    seconds = sum(PACES[name](step) for step in range(trainer.global_step))
    assert abs(seconds - 30) <= 1  # half of the longest step, validations not counted
    assert len(course.validated_at) == 12
    assert course.validated_at[-1] == trainer.global_step
    assert course.rates[0] == pytest.approx(PEAK / 10)
    assert max(course.rates) == pytest.approx(PEAK, rel=0.05)
    assert course.rates[-1] == pytest.approx(PEAK / 100, abs=PEAK / 20)


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_under_images_the_schedule_is_that_of_as_many_steps(train: Train, family: str) -> None:
    trainer, course = train(Budget(images=24 * 20), family=family)
    assert trainer.global_step == 24
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    schedule = OneCycle(optimizer, 24, pct_start=0.25, div_factor=10, final_div_factor=10)
    expected = []
    for _ in range(24):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert course.rates == pytest.approx(expected, abs=0.12 * PEAK)  # torch's phases are a step shorter than asked
    assert [course.rates[0], course.rates[-1]] == pytest.approx([expected[0], expected[-1]])


def test_a_slow_beginning_tells_nothing_of_the_pace(train: Train) -> None:
    """A compiler may take half of the time: the warm-up of the learning rate is not skipped for that."""
    _, course = train(Budget(minutes=1), lambda step: 30.0 if step == 0 else 1.0)
    assert course.rates[:3] == pytest.approx([PEAK / 10] * 3)
    assert course.rates[5] < 0.5 * PEAK


def test_images_end_with_the_batch_that_reaches_them(train: Train) -> None:
    trainer, _ = train(Budget(images=210))
    assert trainer.lightning_module.images_seen == 220
    trainer, course = train(Budget(images=210), accumulate_grad_batches=2)
    assert trainer.lightning_module.images_seen == 220  # an epoch's last batch is a step of its own
    assert trainer.global_step == len({share for share in course.shares if share}) == 7


@pytest.mark.parametrize("stop", [1, 12])
def test_a_resumed_run_has_the_minutes_that_are_left(train: Train, tmp_path: Path, stop: int) -> None:
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
            if trainer.global_step == stop:
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    whole, unbroken = train(Budget(minutes=0.5))
    train(Budget(minutes=0.5), callbacks=(Stop(),))
    resumed, rest = train(Budget(minutes=0.5), ckpt_path=tmp_path / "half.ckpt")
    assert resumed.global_step == whole.global_step == 30
    assert rest.rates[-1] == pytest.approx(unbroken.rates[-1], abs=PEAK / 20)
    assert rest.rates[0] == pytest.approx(unbroken.rates[stop], abs=PEAK / 10)
    # with twice the time, the schedule goes back to where it would be
    longer, more = train(Budget(minutes=1), ckpt_path=tmp_path / "half.ckpt")
    assert longer.global_step == 60
    assert max(more.rates) == pytest.approx(PEAK, rel=0.05)


def test_a_run_of_epochs_goes_on_for_minutes_and_back(train: Train, make_vae: Any, make_trainer: Any) -> None:
    first = make_trainer(max_epochs=10, limit_val_batches=0, callbacks=[TrainingClock()])
    first.fit(model_of(make_vae), ImageDataModule(subset=60, batch_size=20))
    path = Path(first.default_root_dir) / "epochs.ckpt"
    first.save_checkpoint(path)
    assert first.global_step == 30
    trainer, course = train(Budget(images=60 * 20), ckpt_path=path)
    assert trainer.global_step == 60
    assert course.rates[0] == pytest.approx(0.55 * PEAK, rel=0.5)  # of sixty steps the thirty-first
    path = Path(trainer.default_root_dir) / "images.ckpt"
    trainer.save_checkpoint(path)
    back, course = train(Budget(), ckpt_path=path, max_epochs=30)
    assert back.global_step == 90
    assert course.rates[-1] == pytest.approx(PEAK / 100, rel=0.2)


def test_a_run_that_is_over_trains_no_more(train: Train, tmp_path: Path) -> None:
    trainer, _ = train(Budget(images=100))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    again, course = train(Budget(images=100), ckpt_path=tmp_path / "end.ckpt")
    assert again.global_step == 5
    assert course.rates == []
    more, _ = train(Budget(images="0.2k"), ckpt_path=tmp_path / "end.ckpt")
    assert more.global_step == 10


class Due(L.Callback):
    """Notes when a budget wants an evaluation."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.at: list[int] = []

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self.budget.evaluates_now:
            self.at.append(trainer.global_step)


def test_evaluations_are_among_the_validations(train: Train) -> None:
    budget = Budget(images=24 * 20)
    _, course = train(budget, callbacks=(due := Due(budget),))
    assert course.validated_at == [*range(2, 25, 2)]
    assert due.at == [6, 12, 18, 24]


@pytest.mark.parametrize(("seconds", "at"), [(0.5, [8, 13, 19, 24]), (1.5, [8, 19, 24]), (500, [8, 24])])
def test_evaluations_before_the_end_take_a_fifth_of_the_time(train: Train, seconds: float, at: list[int]) -> None:
    budget = Budget(minutes=0.4)
    train(budget, callbacks=(due := Due(budget),), validation=seconds)
    assert due.at == at


def test_validations_may_be_left_to_the_trainer(train: Train) -> None:
    _, course = train(Budget(images=24 * 20, validations=None), check_val_every_n_epoch=4)
    assert course.validated_at == [12, 24]


def test_the_last_state_is_saved_now_and_then_and_not_every_epoch(train: Train, tmp_path: Path) -> None:
    last = LastCheckpoint()
    last.dirpath = str(tmp_path)
    trainer, _ = train(Budget(images=30 * 20), callbacks=(last,), batch_size=60, enable_checkpointing=True)
    assert trainer.current_epoch == 10
    saved = read_checkpoint(tmp_path / "last.ckpt")
    assert saved["global_step"] == trainer.global_step
    assert saved["callbacks"]["Budget"] == {"share": 1.0, "limit": {"images": 600}}


def test_without_a_budget_nothing_changes(train: Train) -> None:
    trainer, course = train(Budget(), max_epochs=3)
    assert trainer.global_step == 9
    assert course.validated_at == [3, 6, 9]
    assert course.shares == pytest.approx([step / 9 for step in range(1, 10)])


@pytest.mark.parametrize(
    ("given", "images"),
    [("500k", 500_000), ("2M", 2_000_000), ("2_000_000", 2_000_000), (64, 64), ("1.5k", 1500), ("1e5", 100_000)],
)
def test_numbers_of_images(given: int | str, images: int) -> None:
    assert number_of_images(given) == images


@pytest.mark.parametrize("given", ["0", "-5", "2X", "many", "", "0.2", "nan", True])
def test_what_is_no_number_of_images(given: Any) -> None:
    with pytest.raises(ValueError, match=r"images=.*: it must be a positive number of images, such as .* 500k or 2M"):
        Budget(images=given)


def test_a_training_has_one_length(train: Train) -> None:
    with pytest.raises(ValueError, match="minutes=3 and images=2k: a training has one length"):
        Budget(minutes=3, images="2k")
    with pytest.raises(ValueError, match=r"minutes=3 and trainer.max_epochs=5: a training has one length"):
        train(Budget(minutes=3), max_epochs=5)
    with pytest.raises(ValueError, match="minutes=0: it must be positive"):
        Budget(minutes=0)
