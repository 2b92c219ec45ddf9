"""Guidance: a denoiser made from a better and a worse one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Guided"]


class Guided:
    """Classifier-free guidance, x_0 = u + scale (c - u) (Ho & Salimans 2022, eq. 6, with w = scale - 1).

    c and u are the conditional and unconditional estimates of x_0. The paper combines estimates of eps; as eps is an
    affine function of x_0, that is the same. Autoguidance (Karras et al. 2024, "Guiding a diffusion model with a bad
    version of itself", eq. 3) is the same formula, with the estimate of a worse network for u.

    Args:
        conditional: The estimate of x_0 for the wanted class, as a function of x_t (B, ...) and t (B,).
            With a learned variance it returns v as well, which is not guided (Dhariwal & Nichol 2021).
        unconditional: The estimate of x_0 for any image.
        scale: 0 is unconditional, 1 conditional, more exaggerates the condition.
        interval: Guide only where low < t <= high (Kynkäänniemi et al. 2024), be conditional elsewhere, which saves
            evaluations of ``unconditional``. None: guide everywhere. On a GPU, knowing where t is waits for the device.

    Raises:
        ValueError: If ``scale`` is negative, or ``interval`` is not 0 <= low < high <= 1.
    """

    def __init__(
        self,
        conditional: Callable[[Tensor, Tensor], Any],
        unconditional: Callable[[Tensor, Tensor], Any],
        scale: float,
        interval: tuple[float, float] | None = None,
    ) -> None:
        if scale < 0:
            raise ValueError(f"scale={scale}: guidance cannot be negative; 1 is none, 2 to 8 are usual")
        if interval is not None and not 0 <= interval[0] < interval[1] <= 1:
            raise ValueError(f"interval={interval}: it must be two rising times in [0, 1], or None for all of them")
        self.conditional, self.unconditional, self.scale, self.interval = conditional, unconditional, scale, interval

    def __call__(self, x_t: Tensor, t: Tensor) -> Any:
        """Return the guided estimate of x_0, (B, ...), for ``x_t`` (B, ...) at ``t`` (B,)."""
        if self.scale == 1:
            return self.conditional(x_t, t)
        scale: Any = self.scale
        if self.interval is not None:
            low, high = self.interval
            is_guided = (low < t) & (t <= high)
            if not is_guided.any():
                return self.conditional(x_t, t)
            scale = torch.where(is_guided, self.scale, 1.0).to(x_t.dtype).view(-1, *[1] * (x_t.ndim - 1))
        unconditional, conditional = self.unconditional(x_t, t), self.conditional(x_t, t)
        if isinstance(conditional, tuple):
            return torch.lerp(unconditional[0], conditional[0], scale), conditional[1]
        return torch.lerp(unconditional, conditional, scale)
