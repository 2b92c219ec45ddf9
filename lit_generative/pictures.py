"""The picture writer: image tensors in [-1, 1] to PNG files of the same size and channels, 8 bit; points to plots."""

from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "are_points",
    "evenly_spaced",
    "film",
    "picture",
    "save_csv",
    "save_png",
    "scatter",
    "tile",
    "to_uint8",
]


def to_uint8(images: Tensor) -> Tensor:
    """Map [-1, 1] to 0...255, rounding to the nearest level; the inverse of the data module's scaling."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def tile(images: Tensor, columns: int | None = None) -> Tensor:
    """Lay out images (N, C, H, W) row by row on one (C, H', W'), a black line of two pixels between them.

    Args:
        images: Images in [-1, 1].
        columns: Images a row; None: a grid as near to a square as can be.
    """
    columns = columns or round(len(images) ** 0.5)
    missing = -len(images) % columns
    images = F.pad(images.float().cpu(), (0, 2, 0, 2, 0, 0, 0, missing), value=-1)  # (N', C, H + 2, W + 2)
    rows = images.unflatten(0, (-1, columns)).permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
    return rows[:, :-2, :-2]


def scatter(points: Tensor, size: int = 256) -> Tensor:
    """Draw points of [-1, 1]^2 as black dots of three by three pixels on white, y upwards.

    Args:
        points: x and y, (N, 2); those outside are drawn on the border, those that are not finite are left out.
        size: The picture's height and width in pixels.

    Returns:
        The picture, (1, size, size) in [-1, 1].
    """
    points = points.float().cpu()
    x, y = points[points.isfinite().all(dim=1)].clamp(-1, 1).T
    to_pixels = (size - 1) / 2
    marks = torch.zeros(1, size, size)
    marks[0, ((1 - y) * to_pixels).round().long(), ((1 + x) * to_pixels).round().long()] = 1
    return 1 - 2 * F.max_pool2d(marks, 3, stride=1, padding=1)


def are_points(samples: Tensor) -> bool:
    """Whether samples (N, C, H, W) are points of the plane, (N, 2, 1, 1), rather than images."""
    return samples.shape[1:] == (2, 1, 1)


def picture(samples: Tensor, columns: int | None = None) -> Tensor:
    """Draw one picture (C, H', W') of all samples: images by :func:`tile`, points of the plane by :func:`scatter`."""
    return scatter(samples.flatten(1)) if are_points(samples) else tile(samples, columns)


def evenly_spaced(states: Iterable[Tensor], n: int) -> list[Tensor]:
    """Return the first, the last and ``n`` - 2 evenly spaced ones between them, on the CPU; all, if there are no more.

    How many states are to come is not known, and a thousand of them may not fit into memory. So not more than 8 ``n``
    are kept, every second one being let go whenever there are more; then a place is off by at most an eighth of the
    distance to the next one.
    """
    kept: list[Tensor] = []  # states 0, stride, 2 stride, ...
    stride = 1
    for i, state in enumerate(states):
        last = state.to("cpu", torch.float32, copy=True)
        if i % stride == 0:
            kept.append(last)
        if len(kept) > 8 * n:
            kept, stride = kept[::2], 2 * stride
    places = sorted({round(column * i / ((n - 1) * stride)) for column in range(n - 1)})
    return [*(kept[place] for place in places if place * stride < i), last]


def film(frames: list[Tensor]) -> Tensor:
    """Draw frames (n, C, H, W), noisy ones of any scale and at last images, as columns of one picture (C, H', W')."""
    *noisy, images = frames
    scaled = [frame / frame.square().mean().sqrt().clamp(min=1) for frame in noisy]
    shown = [frame.clamp(-1, 1) for frame in (*scaled, images)]
    if are_points(frames[0]):
        return tile(torch.stack([scatter(frame.flatten(1)) for frame in shown]), len(shown))
    return tile(torch.stack(shown, dim=1).flatten(0, 1), len(shown))


def save_csv(points: Tensor, path: Path) -> None:
    """Write points (N, 2, 1, 1) as a table of the columns x and y; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x,y\n" + "".join(f"{x:.9g},{y:.9g}\n" for x, y in points.flatten(1).tolist()))


def save_png(image: Tensor, path: Path) -> None:
    """Write an image (1, H, W) as grayscale or (3, H, W) as RGB; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = to_uint8(image).cpu()
    picture = Image.fromarray(pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy())
    picture.save(path, format="PNG")
