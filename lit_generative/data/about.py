"""What was found in a data set and what will be made of it, in words, for the plan before a training."""

from collections.abc import Mapping

import numpy as np

from lit_generative.data.decode import Decoder
from lit_generative.data.surveys import Survey

__all__ = ["found", "left_out", "made", "mirroring"]

FEW = 5000  # training images, below which mirrored copies are worth a thought


def found(
    counts: Mapping[str, int | None], seen: Survey, labels: np.ndarray | None, num_classes: int | None, skipped: str
) -> str:
    """Say what there is.

    Args:
        counts: Images of each split; None: not known.
        seen: Their sizes and colours, as far as they were looked at.
        labels: Those of the training images, (N,); None: there are none, or they are not known.
        num_classes: How many classes there are; None: none.
        skipped: How many files were left out, and why; "": none.
    """
    parts = [_numbers(counts), _sizes(seen), "colour" if seen.colour else "gray"]
    if num_classes is not None:
        smallest, largest = (0, 0) if labels is None else _extremes(labels, num_classes)
        of_each = f" of {smallest:,} to {largest:,}" if largest and smallest < largest else ""
        parts.append(f"{num_classes} classes{of_each}" if num_classes > 1 else "1 class")
    return ", ".join([*parts, *([skipped] if skipped else [])])


def _numbers(counts: Mapping[str, int | None]) -> str:
    if (train := counts["train"]) is None:
        return "images of unknown number"
    others = [f"{n:,} {name}" for name, n in counts.items() if name != "train" and n is not None]
    return f"{train:,} training image{'' if train == 1 else 's'}" + (f" ({', '.join(others)})" if others else "")


def _sizes(seen: Survey) -> str:
    (h1, w1), (h2, w2) = min(seen.sizes), max(seen.sizes)
    if len(seen.sizes) == 1:
        return f"{h1}x{w1} pixels (height x width)"
    return f"{len(seen.sizes):,} sizes from {h1}x{w1} to {h2}x{w2} (height x width)"


def _extremes(labels: np.ndarray, num_classes: int) -> tuple[int, int]:
    sizes = np.bincount(labels, minlength=num_classes)
    return int(sizes.min()), int(sizes.max())


def made(decoder: Decoder, seen: Survey, subset: int | None) -> str:
    """Say what is done to each image."""
    height, width = decoder.size
    to = f"{height}x{width}, {'gray' if decoder.channels == 1 else 'colour'}"
    if not decoder.resize or seen.sizes == {decoder.size}:
        how = "sizes as they are"
    else:
        is_cut = any(h * width != w * height for h, w in seen.sizes)
        how = f"resized{', the middle cut out of what is longer' if is_cut else ''}"
    return f"{to}, {how}" + (f"; {subset:,} of the training images" if subset else "")


def mirroring(is_on: bool, num_images: int | None) -> str:
    """Say what mirroring does, or would do, to pictures of some kinds; "" where there is no reason to think of it."""
    if is_on:
        return (
            "random_flip is on: each image is mirrored half of the time, right for faces and most things,\n"
            "wrong for text, digits and logos, which are then drawn mirrored, too; --data.random_flip false is without"
        )
    if num_images is None or not 2 <= num_images < FEW:
        return ""
    return (
        "random_flip is off: --data.random_flip true would make twice as many of few images, right for faces and\n"
        "most things, wrong for text, digits and logos, which would then be drawn mirrored, too"
    )


def left_out(count: int, reason: str) -> str:
    """Say how many files were left out, and why the first one was."""
    return f"{count:,} file{'' if count == 1 else 's'} left out ({reason})" if count else ""
