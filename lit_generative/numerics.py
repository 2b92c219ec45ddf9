"""Arithmetic that needs more digits than training has."""

from torch import Tensor

__all__ = ["in_double"]


def in_double(values: Tensor) -> Tensor:
    """Return ``values`` in float64, on the CPU if their device has none (Apple's GPUs)."""
    return (values.cpu() if values.device.type == "mps" else values).double()
