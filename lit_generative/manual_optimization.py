"""Manual optimisation of several networks under Lightning: what its automatic optimisation does for one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, ParallelStrategy, XLAStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["accumulate", "average", "check_trainer", "cut", "end_batch", "frozen", "optimizer_step"]


def check_trainer(trainer: L.Trainer, instead: dict[str, str]) -> None:
    """Refuse what cannot work, before Lightning does without naming a remedy.

    Args:
        trainer: The trainer, before it sets up anything.
        instead: For options of the trainer that need automatic optimisation, what to use.

    Raises:
        ValueError: If such an option is set, or the strategy shards the networks.
    """
    defaults = {"gradient_clip_val": (None, 0), "accumulate_grad_batches": (1,)}
    for option, remedy in instead.items():
        if getattr(trainer, option) not in defaults[option]:
            raise ValueError(f"trainer.{option}={getattr(trainer, option)}: use {remedy}, there are several networks")
    strategy = trainer.strategy
    replicates = isinstance(strategy, DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy | XLAStrategy)
    if isinstance(strategy, ParallelStrategy) and not replicates:
        raise ValueError(
            f"trainer.strategy={type(strategy).__name__}: two networks that take turns run on several devices "
            "with ddp only"
        )


def cut(parts: int, *tensors: Tensor | None) -> list[tuple[Any, ...]]:
    """Cut tensors (n, ...) alike into at most so many parts; None stays None in each part."""
    chunks = [None if tensor is None else tensor.chunk(parts) for tensor in tensors]
    count = max(len(chunk) for chunk in chunks if chunk is not None)
    return list(zip(*([None] * count if chunk is None else chunk for chunk in chunks), strict=True))


def accumulate(model: L.LightningModule, parts: Iterable[dict[str, Tensor]], n: int) -> dict[str, Tensor]:
    """Add the gradients of the mean over ``n`` images of the sum of losses, of this process alone.

    DistributedDataParallel expects a gradient for every parameter in every backward pass, but a pass here reaches one
    of the networks; :func:`optimizer_step` averages over the processes instead.

    Args:
        model: The model.
        parts: Losses (b,) by name, of one part of the images after the other; each is computed when it is asked for.
        n: How many images there are in all parts.

    Returns:
        All losses by name, (n,), detached.
    """
    strategy, kept = model.trainer.strategy, []
    for losses in parts:
        with strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext():
            model.manual_backward(sum(losses.values(), torch.zeros(())).sum() / n)
        kept.append({name: loss.detach() for name, loss in losses.items()})
    return {name: torch.cat([losses[name] for losses in kept]) for name in kept[0]}


def optimizer_step(model: L.LightningModule, index: int, *, counts: bool) -> None:
    """Average the gradients of an optimizer's parameters over the processes, step, and clear them.

    Args:
        model: The model; its ``on_before_optimizer_step`` is called with unscaled gradients.
        index: Which of its optimizers.
        counts: Whether ``global_step`` advances. Lightning would count each optimizer's steps; the last one of a batch
            is to count, so that there is one ``global_step`` all through it.
    """
    optimizer: Optimizer = model.trainer.optimizers[index]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    average(model.trainer, [p.grad for p in parameters if p.grad is not None])
    if counts:
        model.optimizers()[index].step()  # type: ignore[index, union-attr]
    else:
        model.trainer.strategy.optimizer_step(optimizer, lambda: None)
    optimizer.zero_grad()


def end_batch(model: L.LightningModule) -> None:
    """Average what the model keeps in buffers over the processes, and let all schedules advance."""
    average(model.trainer, model.buffers())
    for config in model.trainer.lr_scheduler_configs:
        model.lr_scheduler_step(config.scheduler, None)  # type: ignore[arg-type]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Let gradients pass through a network without reaching its parameters, which also saves computing them."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for p in parameters:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in parameters:
            p.requires_grad_(True)


@torch.no_grad()
def average(trainer: L.Trainer, tensors: Iterable[Tensor]) -> None:
    """Replace floating-point tensors by their means over all processes, in one exchange."""
    tensors = [tensor for tensor in tensors if tensor.is_floating_point()]
    if trainer.world_size == 1 or not tensors:
        return
    joined = torch.cat([tensor.flatten().float() for tensor in tensors])
    joined = trainer.strategy.reduce(joined, reduce_op="mean")
    for tensor, mean in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))
