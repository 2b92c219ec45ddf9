"""How samples are drawn: checked, in evaluation mode, without gradients, and reproducibly."""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lit_generative.agreement import shape_of
from lit_generative.calls import evaluating
from lit_generative.checks import check_count
from lit_generative.core import GenerativeModule
from lit_generative.finite import broken_weight
from lit_generative.precision import computing

__all__ = ["check_images", "check_is_of_classes", "check_labels", "inference", "sampling_mode"]


def sampling_mode(sample: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorate an implementation of ``sample``: check the arguments, then run it as sampling should run.

    That is: in evaluation mode, without gradients, in the precision of the training, all randomness (that of
    ``torch.distributions`` too) from ``generator``, and clamped to [-1, 1].
    """

    @functools.wraps(sample)
    def checked(
        self: GenerativeModule, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        y = check_labels(self, n, y)
        with inference(self, generator):
            images = sample(self, n, y, generator=generator).float().clamp(-1, 1)
        _warn_of_broken(self, images)
        return images

    return checked


def _warn_of_broken(model: GenerativeModule, images: Tensor) -> None:
    """Say that samples are not finite, and which weight is not; an evaluation goes on and counts them."""
    broken = int((~images.isfinite()).flatten(1).any(dim=1).sum())
    if broken:
        weight = broken_weight(model)
        reason = f"the weight {weight} is not finite either" if weight else "the weights are"
        warnings.warn(f"{broken} of {len(images)} samples have values that are not finite; {reason}", stacklevel=3)


def check_labels(model: GenerativeModule, n: int, y: Tensor | None) -> Tensor | None:
    """Return the labels, or other conditions, of ``n`` samples on the model's device; None for a model without.

    Raises:
        ValueError: If ``n`` is below 1, or the labels are missing, are too many or name classes that are not there.
    """
    check_count("n", n)
    if model.condition is None:
        if y is not None:
            raise ValueError("y was given, but the model is unconditional (num_classes is not set)")
        return None
    model.condition.check(y, n)
    assert y is not None
    return y.to(model.device)


def check_is_of_classes(model: GenerativeModule, who: str) -> None:
    """Refuse a model that is told something else than classes, where nothing else can be given.

    Raises:
        ValueError: It names ``who`` cannot.
    """
    if model.condition is not None and model.num_classes is None:
        raise ValueError(
            f"{who} knows no conditions but classes, and this model's {type(model.condition).__name__} asks for "
            f"{model.condition.asks}: give images to `lit-generative edit`, or y to model.sample() in Python"
        )


def check_images(model: GenerativeModule, **images: Tensor) -> None:
    """Refuse images (B, C, H, W) of another shape than the model is made for.

    Raises:
        ValueError: It names the argument.
    """
    expected = shape_of(model)
    for name, x in images.items():
        if expected is not None and (x.ndim != 4 or tuple(x.shape[1:]) != expected):
            raise ValueError(f"{name} has shape {tuple(x.shape)}: the model takes images (B, {str(expected)[1:]}")


@contextmanager
def inference(model: GenerativeModule, generator: torch.Generator | None = None) -> Iterator[None]:
    """Evaluation mode, no gradients, the precision of the training, and all randomness from ``generator``, if given."""
    with evaluating(model), torch.no_grad(), _seeded_by(generator, model.device), computing(model, model.precision):
        yield


@contextmanager
def _seeded_by(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Draw torch's global randomness from ``generator``, and leave the global state as it was."""
    if generator is None:
        yield
        return
    seed = torch.randint(2**62, (), generator=generator, device=generator.device).item()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(seed))
        yield
