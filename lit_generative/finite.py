"""Weights and samples that are not finite, which would be black or gray pictures without a word."""

from pathlib import Path

from torch import Tensor, nn

__all__ = ["broken_weight", "check_finite_samples", "check_finite_weights"]


def broken_weight(model: nn.Module) -> str:
    """Return the name of the first parameter that is not finite, or buffer with a nan (some masks are infinite)."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return name
    return next((name for name, buffer in model.named_buffers() if buffer.isnan().any()), "")


def check_finite_weights(model: nn.Module, source: str | Path) -> None:
    """Refuse a model whose weights have diverged.

    Args:
        model: The model.
        source: Its checkpoint, for errors.

    Raises:
        FloatingPointError: It names the first such weight and the checkpoint.
    """
    if name := broken_weight(model):
        raise FloatingPointError(
            f"checkpoint {source}: {name} has values that are not finite, so nothing can be drawn from it; the "
            "training had diverged, take an earlier checkpoint"
        )


def check_finite_samples(images: Tensor, source: str | Path) -> None:
    """Refuse samples that are not finite although the weights are: half precision may overflow, for instance.

    Raises:
        FloatingPointError: It says how many, and names the checkpoint.
    """
    broken = int((~images.isfinite()).flatten(1).any(dim=1).sum())
    if broken:
        raise FloatingPointError(
            f"checkpoint {source}: {broken} of {len(images)} samples have values that are not finite, though the "
            "weights are; another sampler, more steps, or a higher precision may help"
        )
