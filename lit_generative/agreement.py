"""Whether a model, its data and their batches go together: said in one sentence each, before any work is done."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from lit_generative.contracts import Batch, DeclaresClasses, DeclaresShape, NamesClasses
from lit_generative.description import Described, unwrapped

__all__ = ["check_agreement", "check_batch", "shape_of"]

TOLERANCE = 0.01  # beyond [-1, 1]: rounding, not another range
FEW = 8  # images that may all happen to be bright


def shape_of(model: nn.Module) -> tuple[int, ...] | None:
    """Return (C, H, W) of the images that a model or one of its networks was made for; None: nothing says so."""
    if isinstance(model, DeclaresShape):
        return tuple(model.image_shape)
    for network in map(unwrapped, model.children()):
        if isinstance(network, Described) and "image_shape" in network._init_args:
            return tuple(network._init_args["image_shape"])
    return None


def check_agreement(model: Any, data: Any) -> None:
    """Compare a model with data: the images' shape, the number of classes and, where both are known, their names.

    Args:
        model: A GenerativeModule.
        data: Any data module; what it does not declare is not compared.

    Raises:
        ValueError: If they differ, or a conditional model's data declare no classes.
    """
    ours, of = type(model).__name__, _name(data)
    shape = shape_of(model)
    if shape is not None and isinstance(data, DeclaresShape) and tuple(data.image_shape) != shape:
        raise ValueError(
            f"{ours} is made for images of shape {shape}, but those of {of} have {tuple(data.image_shape)}: give data "
            "of the model's shape (ImageDataModule has image_size and channels), or a model of theirs"
        )
    if model.num_classes is None:
        return
    if not isinstance(data, DeclaresClasses):
        raise ValueError(f"num_classes={model.num_classes}, but {of} has no num_classes: give it that attribute")
    if data.num_classes != model.num_classes:
        raise ValueError(
            f"num_classes={model.num_classes}, but the data have {data.num_classes or 'no'} classes ({of}): give data "
            f"of the classes that {ours} knows, or another model"
        )
    names = list(data.class_names or []) if isinstance(data, NamesClasses) else []
    _check_names(ours, model.class_names, of, names)


def _check_names(model: str, own: list[str] | None, data: str, names: list[str]) -> None:
    """Compare what classes are called, unless they only have numbers."""
    if not own or not names or own == names or all(map(str.isdigit, own)) or all(map(str.isdigit, names)):
        return
    i = next(i for i, pair in enumerate(zip(own, names, strict=True)) if pair[0] != pair[1])
    raise ValueError(
        f"class {i} is {own[i]!r} for {model}, which was trained so, but {names[i]!r} in {data}: give data of the same "
        "classes in the same order"
    )


def _name(data: Any) -> str:
    name = getattr(data, "name", None)
    return name if isinstance(name, str) else type(data).__name__


def check_batch(batch: Batch, split: str, shape: tuple[int, ...] | None, num_classes: int | None) -> None:
    """Look at a batch for what would be learned from without a word: another range, another shape, labels of no class.

    Args:
        batch: Images under ``image`` and, of a conditional model, labels under ``label``.
        split: What they are, for errors: "training", "validation", "test" or "prediction".
        shape: (C, H, W) that the model is made for; None: not known.
        num_classes: Of a conditional model; None: labels do not matter.

    Raises:
        ValueError: If anything is not as it should be; the message says what would do.
    """
    x = batch["image"]
    if x.ndim != 4:
        raise ValueError(f"{split} images have shape {tuple(x.shape)}: give (B, C, H, W), for instance by unsqueeze(1)")
    if not x.is_floating_point():
        raise ValueError(f"{split} images are {_short(x.dtype)}: give floats in [-1, 1], for instance x / 127.5 - 1")
    if shape is not None and tuple(x.shape[1:]) != shape:
        raise ValueError(
            f"{split} images have shape {tuple(x.shape[1:])}, but the model is made for {shape}: resize them or change "
            "their channels, or make another model"
        )
    _check_values(x.detach(), split)
    if num_classes is not None:
        _check_labels(batch["label"], len(x), split, num_classes)


def _check_values(x: Tensor, split: str) -> None:
    broken = int((~x.isfinite()).flatten(1).any(dim=1).sum())
    if broken:
        raise ValueError(
            f"{split} images have values that are not finite, {broken} of the first {len(x)}: leave those out, or look "
            "at how they are normalised"
        )
    low, high = x.min().item(), x.max().item()
    if low < -1 - TOLERANCE or high > 1 + TOLERANCE:
        remedy = "x / 127.5 - 1" if 2 < high <= 255 and low >= 0 else "scale them, or clamp(-1, 1)"
        raise ValueError(f"{split} images are in [{low:.4g}, {high:.4g}], but should be in [-1, 1]: {remedy}")
    if low >= 0 and len(x) >= FEW:
        warnings.warn(
            f"{split} images are all in [{low:.4g}, {high:.4g}], but should be in [-1, 1]: if 0 is black, give 2 x - 1",
            stacklevel=2,
        )


def _check_labels(y: Tensor, n: int, split: str, num_classes: int) -> None:
    if y.shape != (n,):
        hint = "y.argmax(1) of a one-hot code" if y.ndim == 2 and y.shape[1] == num_classes else "one number an image"
        raise ValueError(f"{split} labels have shape {tuple(y.shape)}: give ({n},), {hint}")
    if y.is_floating_point() or y.dtype == torch.bool:
        raise ValueError(f"{split} labels are {_short(y.dtype)}: give the classes' numbers, for instance y.long()")
    low, high = int(y.min()), int(y.max())
    if not 0 <= low <= high < num_classes:
        raise ValueError(
            f"{split} labels go from {low} to {high}: the model's num_classes={num_classes} are 0 to {num_classes - 1}"
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
