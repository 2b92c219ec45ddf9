"""What is about to be trained, and how long it will take, in a line each."""

from math import inf
from time import monotonic
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Timer

from lit_generative.contracts import ImageData
from lit_generative.nn.adapters import adapted_networks

__all__ = ["Outlook", "duration", "total_steps"]

WARM_UP = 2  # steps in which memory is found and kernels are chosen
ENOUGH_SECONDS, ENOUGH_STEPS = 5.0, 5  # of training behind them, from which a pace is told
LONG = 60.0  # seconds after which fewer steps have to do


def total_steps(trainer: L.Trainer) -> float:
    """Return how many steps a training takes in all; inf where that is not known, as of streamed data by epochs."""
    steps = trainer.estimated_stepping_batches
    return inf if steps < 0 else steps  # Lightning returns max_steps, -1, of data without a length


def duration(seconds: float) -> str:
    """Return a time in words, such as "3.2 min"."""
    for unit, size in {"h": 3600, "min": 60}.items():
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


class Outlook(L.Callback):
    """Says what is trained, when a training starts, and after its first steps how long the others will take.

    The pace is that of the steps of this training, validation and evaluation not counted; nothing is told of a training
    that is over before it can be measured.
    """

    def __init__(self) -> None:
        self._start: tuple[int, float] | None = None  # the step and the time behind the warm-up
        self._paused = 0.0  # seconds of validation since then
        self._validation_began = 0.0
        self._has_told = False
        self._first_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what is trained."""
        self.__init__()  # type: ignore[misc]  # a second training begins anew
        self._first_step = trainer.global_step
        _say(trainer, f"{type(pl_module).__name__}: {', '.join(_facts(trainer, pl_module))}")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, and say once how long it will take."""
        step = trainer.global_step
        if self._has_told or step - self._first_step < WARM_UP:
            return
        if self._start is None:
            self._start, self._paused = (step, monotonic()), 0.0
            return
        steps, seconds = step - self._start[0], monotonic() - self._start[1] - self._paused
        is_enough = seconds >= ENOUGH_SECONDS and (steps >= ENOUGH_STEPS or seconds >= LONG)
        if is_enough and steps > 0:
            self._has_told = True
            if left := _left(trainer, steps / seconds):
                _say(trainer, left)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._validation_began = monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let it go on."""
        self._paused += monotonic() - self._validation_began


def _say(trainer: L.Trainer, line: str) -> None:
    if not trainer.is_global_zero:
        return
    bar = trainer.progress_bar_callback
    if bar is not None and bar.is_enabled:  # type: ignore[attr-defined]
        bar.print(line)
    else:
        print(line, flush=True)


def _facts(trainer: L.Trainer, model: L.LightningModule) -> list[str]:
    """Return what a training is about, in words."""
    images = _num_images(trainer)
    total, done = total_steps(trainer), trainer.global_step
    steps = f"{int(total):,} steps" if total < inf else f"as many steps as {_limit(trainer)}"
    return [
        _parameters(model),
        "training images of unknown number" if images is None else f"{images:,} training images",
        steps + (f", {done:,} of them done" if done else ""),
        f"on {trainer.strategy.root_device}" + (f" x {trainer.world_size}" if trainer.world_size > 1 else ""),
    ]


def _parameters(model: L.LightningModule) -> str:
    """Return how many weights are trained and, of a network with adapters, beside how many that are not."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    networks = [
        network for _, network, _ in adapted_networks(model) if any(p.requires_grad for p in network.parameters())
    ]
    frozen = sum(p.numel() for network in networks for p in network.parameters() if not p.requires_grad)
    return f"{trained:,} parameters" + (f" trained (adapters) beside {frozen:,} that are not" if frozen else "")


def _num_images(trainer: L.Trainer) -> int | None:
    """Return how many images there are to train on, if that is known without reading them."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(data, ImageData):
        return data.num_images("train")
    try:
        return len(trainer.train_dataloader.dataset)  # type: ignore[union-attr]
    except (AttributeError, TypeError):  # a loader of another kind, or a stream
        return None


def _limit(trainer: L.Trainer) -> str:
    """Return what ends a training whose number of steps is not known."""
    if (seconds := _seconds_allowed(trainer)) is not None:
        return f"fit into {duration(seconds)}"
    epochs = trainer.max_epochs
    return f"{epochs} epochs have" if epochs is not None and epochs > 0 else "there is time for, until it is stopped"


def _seconds_allowed(trainer: L.Trainer) -> float | None:
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    allowed = [left for timer in timers if (left := timer.time_remaining()) is not None]
    return min(allowed, default=None)


def _left(trainer: L.Trainer, pace: float) -> str:
    """Return how long the training will take at a pace in steps a second; "" if it is over."""
    steps, allowed = total_steps(trainer) - trainer.global_step, _seconds_allowed(trainer)
    by_steps = steps / pace
    speed = f"{pace:.3g} steps/s" if pace >= 0.1 else f"{1 / pace:.3g} s a step"
    if steps <= 0:
        return ""
    if allowed is not None and allowed < by_steps:
        return f"{duration(allowed)} left, by trainer.max_time, at {speed}"
    if by_steps == inf:
        return f"{speed}; how many are left is not known"
    return f"about {duration(by_steps)} of training left at {speed}; validation and evaluation come on top"
