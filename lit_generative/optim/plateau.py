"""A learning rate that falls when a metric stops getting better."""

from typing import Literal

import torch
from torch.optim import Optimizer

__all__ = ["ReduceLROnPlateau"]


class ReduceLROnPlateau(torch.optim.lr_scheduler.ReduceLROnPlateau):
    """torch's schedule, which knows what it watches; it looks whenever that has been measured.

    Args:
        optimizer: Whose learning rate falls.
        monitor: A logged metric, such as ``val/loss``, or ``train/loss`` at each epoch's end.
        mode: ``min`` or ``max``: whether less or more of it is better.
        factor: What the learning rate is multiplied by.
        patience: Looks without an improvement that are waited for.
        threshold: The least relative change that is an improvement.
        cooldown: Looks after a fall in which nothing is counted.
        min_lr: Where it ends.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(optimizer, mode, factor, patience, threshold=threshold, cooldown=cooldown, min_lr=min_lr)
        self.monitor = monitor
