"""What a model calls its networks with, tried before the first step: a user's own network may be written otherwise."""

import inspect
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["FEW", "NetworkCall", "evaluating", "try_calls"]

FEW = 2  # images that a call is tried with


@dataclass(frozen=True)
class NetworkCall:
    """A call of a network, and what has to come of it.

    Attributes:
        part: The model's argument, such as "encoder".
        network: What is called.
        arguments: By the names that documentation gives them, in their order.
        shape: Of the tensor that is returned, or, with ``is_distribution``, of what is drawn from it.
        meaning: What that is, in words.
        is_distribution: Whether a distribution is returned.
    """

    part: str
    network: nn.Module
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    meaning: str
    is_distribution: bool = False

    def __str__(self) -> str:
        """Return how the call is written."""
        return f"forward({', '.join(self.arguments)})"


def try_calls(model: nn.Module, calls: Iterable[NetworkCall]) -> None:
    """Call networks as a training does, in evaluation mode, without gradients, and without a trace in random numbers.

    Raises:
        ValueError: If a network does not take the arguments, fails on them, or returns something else.
    """
    with evaluating(model), torch.no_grad(), isolate_rng():
        for call in calls:
            _try(call)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every submodule into evaluation mode and each back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _try(call: NetworkCall) -> None:
    network = getattr(call.network, "_orig_mod", call.network)  # as it is before torch.compile
    who, values = f"{call.part}: {type(network).__name__}", list(call.arguments.values())
    given = ", ".join(f"{name} {_written(value)}" for name, value in call.arguments.items())
    try:
        inspect.signature(network.forward).bind(*values)
    except TypeError as error:
        own = f"forward{inspect.signature(network.forward)}"
        raise ValueError(
            f"{who} is called as {call}, with {given}, but is written as {own}: {error}; let it take these"
        ) from None
    try:
        output = network.forward(*values)
    except Exception as error:
        place = _place(error)
        if place is None:
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{who} fails on {call}, with {given}, {place}: {reason}") from error
    _check_output(who, call, output)


def _place(error: Exception) -> str | None:
    """Return where a network failed, in words; None if it has said itself what is wrong."""
    frames = traceback.extract_tb(error.__traceback__)
    if not _is_torchs(frames[-1].filename) and (frames[-1].line or "").startswith("raise "):
        return None
    own = [frame for frame in frames if not _is_torchs(frame.filename) and frame.filename != __file__]
    return f"in {Path(own[-1].filename).name}, line {own[-1].lineno}" if own else "in a layer of torch"


def _check_output(who: str, call: NetworkCall, output: Any) -> None:
    kind, wanted = (Distribution, "a distribution over") if call.is_distribution else (Tensor, "a tensor,")
    must = f"{call} must return {wanted} {call.meaning}, {call.shape}"
    if not isinstance(output, kind):
        raise ValueError(f"{who} returns a {type(output).__name__}, but {must}")
    shape = tuple(output.batch_shape + output.event_shape) if isinstance(output, Distribution) else tuple(output.shape)
    if shape != call.shape:
        raise ValueError(f"{who} returns {shape}, but {must}")


def _written(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else str(value)


def _is_torchs(file: str) -> bool:
    return "torch" in Path(file).parts
