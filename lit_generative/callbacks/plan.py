"""The plan of a training in words, and what came of it: silent on what is not known."""

import math
import sys
from collections.abc import Sequence
from math import inf

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer

from lit_generative.budgets import budget_of
from lit_generative.callbacks.budget import Budget
from lit_generative.callbacks.ema import EMA
from lit_generative.contracts import DeclaresBatchSize, DeclaresShape, ImageData, TellsItsPlan
from lit_generative.nn.adapters import adapted_networks

__all__ = ["duration", "outcome", "plan", "seconds_allowed", "shortness", "size_of_set", "total_steps"]

FEW = 1000  # training images, of which a model that draws good ones draws copies
ENOUGH = 50_000  # images to be seen before shapes appear, with the recipes here at 28 to 64 pixels a side
STILL = 0.02  # of all that was gained, in the last third: so much more, and a training was too short
LOST = 0.2  # of all that was gained, since the best: so much more, and a training was too long
WIDTH = 10  # of the first column


def total_steps(trainer: L.Trainer) -> float:
    """Return how many steps a training takes in all, as far as the pace tells; inf where that is not known."""
    if isinstance(budget := budget_of(trainer), Budget):
        return budget.total_steps(trainer)
    steps = trainer.estimated_stepping_batches
    return inf if steps < 0 else steps  # Lightning returns max_steps, -1, of data without a length


def duration(seconds: float) -> str:
    """Return a time in words, such as "3.2 min"."""
    for unit, size in {"h": 3600, "min": 60}.items():
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def plan(trainer: L.Trainer, model: L.LightningModule) -> list[str]:
    """Return the lines of the block that is printed before the first step."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    about = data.plan() if isinstance(data, TellsItsPlan) else _found(trainer)
    about |= model.plan() if isinstance(model, TellsItsPlan) else {}
    lines = about | {"network": _network(trainer, model), "training": _training(trainer)}
    lines |= {"expect": "\n".join(_expectations(trainer))}
    order = ("found", "made", "augmented", "network", "training", "expect", "mirrored")
    named = [(name, line) for name in order for line in lines.get(name, "").splitlines()]
    heads = ["" if i and named[i - 1][0] == name else name for i, (name, _) in enumerate(named)]
    shown = [f"  {head:{WIDTH}}{line}" for head, (_, line) in zip(heads, named, strict=True)]
    name = f" on {data.name}" if isinstance(data, ImageData) else ""
    return [f"The plan: {type(model).__name__}{name}", *shown]


def size_of_set(trainer: L.Trainer) -> int | None:
    """Return how many images there are to train on, if that is known without reading them."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(data, ImageData):
        return data.num_images("train")
    try:
        return len(trainer.train_dataloader.dataset)  # type: ignore[union-attr]
    except (AttributeError, TypeError):  # a loader of another kind, or a stream
        return None


def _found(trainer: L.Trainer) -> dict[str, str]:
    images, data = size_of_set(trainer), trainer.datamodule  # type: ignore[attr-defined]
    count = "training images of unknown number" if images is None else f"{images:,} training images"
    shape = f" of shape {tuple(data.image_shape)}" if isinstance(data, DeclaresShape) else ""
    return {"found": count + shape}


def _network(trainer: L.Trainer, model: L.LightningModule) -> str:
    """Say what is trained, where, and what it needs besides the images' way through it."""
    trained = [p for p in model.parameters() if p.requires_grad]
    averages = sum(isinstance(callback, EMA) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    copies = 4 + averages  # weights, gradients, and two moments of them
    memory = copies * sum(p.numel() * p.element_size() for p in trained)
    where = f"{trainer.strategy.root_device}" + (f" x {trainer.world_size}" if trainer.world_size > 1 else "")
    return (
        f"{sum(p.numel() for p in trained):,} parameters{_beside(model)} on {where}; about {_bytes(memory)} with "
        "gradients, optimizer and averages"
    )


def _beside(model: L.LightningModule) -> str:
    """Say how many weights of networks with adapters are not trained; "" of other networks."""
    networks = [
        network for _, network, _ in adapted_networks(model) if any(p.requires_grad for p in network.parameters())
    ]
    frozen = sum(p.numel() for network in networks for p in network.parameters() if not p.requires_grad)
    return f" of adapters beside {frozen:,} that are not trained" if frozen else ""


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{max(1, round(count / 2**20))} MiB"


def _per_step(trainer: L.Trainer) -> int | None:
    """Return how many images a step sees; None: not known."""
    data, images = trainer.datamodule, size_of_set(trainer)  # type: ignore[attr-defined]
    if not isinstance(data, DeclaresBatchSize):
        return None
    batch = data.batch_size * trainer.world_size
    return (batch if images is None else min(batch, images)) * trainer.accumulate_grad_batches


def _training(trainer: L.Trainer) -> str:
    """Say how long it is: in steps, in images and in passes over the set, as far as they are known beforehand."""
    budget, done, per_step = budget_of(trainer), trainer.global_step, _per_step(trainer)
    total = total_steps(trainer) if budget is None else inf
    if isinstance(budget, Budget) and budget.images is not None and per_step:
        total = math.ceil(budget.images / per_step)
    if total == inf:
        return _limit(trainer) + (f", {done:,} steps of them done" if done else "")
    of = f" of {per_step:,} images{amount(trainer, total * per_step)}" if per_step else ""
    return f"{int(total):,} steps{of}" + (f", {done:,} steps of them done" if done else "")


def amount(trainer: L.Trainer, seen: float) -> str:
    """Say how many images are seen, and how many passes over the set that is."""
    images = size_of_set(trainer)
    passes = f", {seen / images:,.3g} passes over the set" if images else ""
    return f", {seen:,.0f} in all{passes}"


def _limit(trainer: L.Trainer) -> str:
    """Return what ends a training whose number of steps is not known."""
    budget = budget_of(trainer)
    if isinstance(budget, Budget) and budget.minutes is not None:
        return f"{budget.minutes:g} min; steps and passes over the set follow from the pace, told after the first steps"
    if isinstance(budget, Budget):
        return f"{budget.images:,} images"
    if (seconds := seconds_allowed(trainer)) is not None:
        return f"as many steps as fit into {duration(seconds)}"
    epochs = trainer.max_epochs
    known = epochs is not None and epochs > 0
    return f"as many steps as {f'{epochs} epochs have' if known else 'there is time for, until it is stopped'}"


def seconds_allowed(trainer: L.Trainer) -> float | None:
    """Return how long a training may take by ``trainer.max_time``."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    allowed = [left for timer in timers if (left := timer.time_remaining()) is not None]
    return min(allowed, default=None)


def _are_images(trainer: L.Trainer) -> bool:
    data = trainer.datamodule  # type: ignore[attr-defined]
    return isinstance(data, DeclaresShape) and tuple(data.image_shape[1:]) != (1, 1)


def _expectations(trainer: L.Trainer) -> list[str]:
    images, per_step, budget = size_of_set(trainer), _per_step(trainer), budget_of(trainer)
    if not _are_images(trainer):
        return []
    lines = []
    if images is not None and images < FEW:
        count = "1 image" if images == 1 else f"{images:,} images"
        lines.append(f"{count}: samples that are good will be near copies; evaluations tell their share, `memorised`")
    if isinstance(budget, Budget):
        seen: float = inf if budget.images is None else budget.images
    else:
        seen = total_steps(trainer) * (per_step or inf)
    return lines + [line for line in [shortness(trainer, seen)] if line]


def shortness(trainer: L.Trainer, seen: float) -> str:
    """Say that so many images are too few to be seen, or ""."""
    if seen >= ENOUGH or not _are_images(trainer):
        return ""
    return (
        f"too short: {seen:,.0f} images will be seen, and shapes appear after some {ENOUGH:,} or more; before, samples "
        "are blurred patches"
    )


def memory_in_use(device: torch.device) -> str:
    """Say how much memory the training has needed so far; "" where that is not known."""
    if device.type == "cuda":
        return f"; {_bytes(torch.cuda.max_memory_allocated(device))} of its memory in use"
    try:
        import resource  # not on Windows
    except ImportError:
        return ""
    unit = 1024 if sys.platform.startswith("linux") else 1
    return f"; {_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)} of memory in use"


def outcome(trainer: L.Trainer, images_seen: int, seconds: float | None, name: str, course: Sequence[float]) -> str:
    """Say what came of a training.

    Args:
        trainer: Whose it was.
        images_seen: How many images it saw.
        seconds: How long it took; None: not known.
        name: Of what was measured, the less the better.
        course: Its values at the validations, in order.
    """
    size = size_of_set(trainer)
    passes = f", {images_seen / size:,.3g} passes over {size:,}" if size else ""
    time = f" in {duration(seconds)} of training" if seconds else ""
    return f"Seen: {images_seen:,} images{passes}{time}.{_trend(name, course)}"


def _trend(name: str, course: Sequence[float]) -> str:
    """Say whether the last third still brought something; "" where there is too little to tell."""
    values = [value for value in course if math.isfinite(value)]
    if len(values) < 4:
        return ""
    before = min(values[: -max(1, len(values) // 3)])
    gained, lately = values[0] - min(values), before - min(values)
    if gained > 0 and lately > STILL * gained:
        return f" {name} was still getting better: too short, a longer training would be better."
    if gained > 0 and values[-1] - min(values) > LOST * gained:
        return f" {name} got worse again: {min(values):.4g} at its best, {values[-1]:.4g} in the end."
    return f" {name} had stopped getting better." if gained > 0 else f" {name} did not get better."
