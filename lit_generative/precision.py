"""Number formats of training and sampling: networks compute in what was asked for, the maths around them in full."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins import HalfPrecision
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lit_generative.numerics import HALF

__all__ = ["HalfWeights", "computing", "raise_eps", "use_half_weights"]

LEAST_EPS = 1e-4  # squares of smaller gradients than this are 0 in float16

DTYPES = {
    "16-mixed": torch.float16,
    "16-true": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
}


class HalfWeights(HalfPrecision):
    """``bf16-true`` and ``16-true``: weights of half the size, and networks that compute with them.

    Lightning's own plugin makes half-precision numbers of images, noise, times and losses as well. Their 8 or 11 bits
    cannot tell the 256 levels of a pixel apart, or two times of a schedule; here all these stay float32.
    """

    def __init__(self, precision: Any, device_type: str) -> None:
        super().__init__(precision)
        self.device_type = device_type

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Let layers cast what they are given to the type of their weights."""
        with torch.autocast(self.device_type, self._desired_input_dtype):
            yield

    def convert_input(self, data: Any) -> Any:
        """Leave the images as they are."""
        return data


def use_half_weights(trainer: L.Trainer) -> None:
    """Put :class:`HalfWeights` in the place of Lightning's plugin, before the trainer sets up the model."""
    plugin, strategy = trainer.precision_plugin, trainer.strategy
    if type(plugin) is HalfPrecision:
        strategy.precision_plugin = HalfWeights(plugin.precision, strategy.root_device.type)


def raise_eps(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer divide float16 weights' updates by no less than 1e-4: an ``eps`` of 1e-8 is 0 there."""
    for group in optimizer.param_groups:
        is_too_small = 0 <= group.get("eps", 1) < LEAST_EPS
        if is_too_small and any(p.dtype == torch.float16 for p in group["params"]):
            rank_zero_warn(
                f"eps={group['eps']:g} of {type(optimizer).__name__} is 0 in 16-true; {LEAST_EPS:g} is taken"
            )
            group["eps"] = LEAST_EPS


@contextmanager
def computing(model: L.LightningModule, precision: str) -> Iterator[None]:
    """Compute outside of a trainer as it would.

    Args:
        model: Its weights may be of any type.
        precision: Lightning's name of the precision that the model was trained in; half-precision weights come first.
    """
    dtype = model.dtype if model.dtype in HALF else DTYPES.get(precision)
    default = torch.float64 if model.dtype == torch.float64 else torch.get_default_dtype()
    with torch.autocast(model.device.type, dtype or torch.bfloat16, enabled=dtype is not None), _default(default):
        yield


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Draw noise of this type, unless told otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
