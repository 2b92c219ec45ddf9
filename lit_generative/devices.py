"""Devices by their names."""

import torch

__all__ = ["device_named"]


def device_named(name: str) -> torch.device:
    """Return a device, or the best there is for ``auto``.

    Raises:
        ValueError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise ValueError(f"device={name!r} is not there: use auto, cpu, cuda or cuda:N") from None
