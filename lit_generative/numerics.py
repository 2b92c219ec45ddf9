"""Arithmetic that needs more digits than training has."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["HALF", "FullPrecisionModule", "at_least_single", "in_double"]

HALF = (torch.float16, torch.bfloat16)


class FullPrecisionModule(nn.Module):
    """A module whose weights and buffers stay what they are where ``to(torch.bfloat16)`` would make them half as large.

    It is for what 8 bits cannot hold: running sums, the codes of a codebook, the map of a flow, a scale in a density.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FullPrecisionModule":
        def keep(values: Tensor) -> Tensor:
            changed = fn(values)
            return values.to(changed.device) if changed.dtype in HALF else changed

        return super()._apply(keep, recurse)


def at_least_single(values: Tensor) -> Tensor:
    """Return ``values`` in float32, or in float64 if they are: a sum over the dimensions of an image needs that."""
    return values.float() if values.dtype in HALF else values


def in_double(values: Tensor) -> Tensor:
    """Return ``values`` in float64, on the CPU if their device has none (Apple's GPUs)."""
    return (values.cpu() if values.device.type == "mps" else values).double()
