"""Inpainting, SDEdit and super-resolution of picture files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_generative.agreement import shape_of
from lit_generative.checks import check_count, check_range
from lit_generative.contracts import Edits
from lit_generative.core import GenerativeModule
from lit_generative.devices import device_named
from lit_generative.editing.files import PictureFile, check_new_files, read_mask
from lit_generative.editing.frames import Frame, softened
from lit_generative.editing.upscaling import upscaled
from lit_generative.finite import check_finite_samples, check_finite_weights
from lit_generative.labels import Labels, class_indices
from lit_generative.nn.image_conditions import LowResolutionCondition, MaskedCondition, luma

__all__ = ["edit_file", "filled", "remade"]

PASSES = 4  # of RePaint; more take longer, and the parts agree no better in 18 steps

Draw = Callable[[Tensor, Tensor | None], Tensor]


def edit_file(
    ckpt_path: str | Path,
    image: str | Path,
    output: str | Path,
    mask: str | Path | None = None,
    start: float | None = None,
    upscale: bool = False,
    num_samples: int = 1,
    seed: int = 0,
    labels: Labels | None = None,
    device: str = "auto",
) -> list[Path]:
    """Change a picture of any size by a diffusion model: fill a hole, remake it, or enlarge it.

    Args:
        ckpt_path: The model's checkpoint.
        image: The picture's file.
        output: The file to write, of the picture's size, or so much larger; it must not be there. Several variants are
            numbered: out_0.png, out_1.png, ...
        mask: A picture of the same size, white where the model is to make up what is there (RePaint); all else stays.
        start: In (0, 1): how much noise is put on the picture before it is made anew (SDEdit). 0.3 keeps most of it.
        upscale: Enlarge it by the factor of a model of super-resolution.
        num_samples: How many variants.
        seed: Decides what is made up.
        labels: Classes of a conditional model, as in sample; for several variants in turn.
        device: Where to draw, for instance cpu or cuda:1; auto: the GPU if there is one.

    Returns:
        The files that were written.

    Raises:
        FileNotFoundError: If the checkpoint or a picture is not there.
        FloatingPointError: If the weights or what is drawn are not finite.
        ValueError: If the model cannot do that, something would be overwritten, or an argument has no meaning.
    """
    _check_arguments(mask, start, upscale, num_samples, seed)
    picture = PictureFile.read(Path(image))
    is_hole = None if mask is None else read_mask(Path(mask), picture.size, Path(image))
    paths = _outputs(Path(output), num_samples)
    check_new_files(paths, picture.alpha is not None)
    model = GenerativeModule.load_from_checkpoint(ckpt_path, map_location="cpu").to(device_named(device))
    check_finite_weights(model, ckpt_path)
    _check_can(model, ckpt_path, "mask" if mask else "start" if start is not None else "upscale")
    y = _labels(model, num_samples, labels)
    generator = torch.Generator(model.device).manual_seed(seed)
    for i, path in enumerate(paths):
        told = None if y is None else y[i : i + 1]
        if is_hole is not None:
            result = filled(model, picture, is_hole, told, generator)
        elif start is not None:
            result = remade(model, picture, start, told, generator)
        else:
            result = upscaled(model, picture, generator)
        check_finite_samples(result.colours[None], ckpt_path)
        result.write(path)
    height, width = result.size
    print(f"{', '.join(map(str, paths))}: {width} x {height} pixels")
    return paths


def filled(
    model: Any, picture: PictureFile, is_hole: Tensor, y: Tensor | None = None, generator: torch.Generator | None = None
) -> PictureFile:
    """Return a picture with its hole (1, H, W) made up; outside of it nothing is changed."""
    channels, *size = shape_of(model)  # type: ignore[misc]
    frame = Frame.around(picture.size, (size[0], size[1]), is_hole)
    seen = picture.on()
    seen = torch.where(is_hole, seen[:, ~is_hole[0]].mean(dim=1)[:, None, None], seen)  # what is there is not to show
    x, hole = _as_channels(frame.cut(seen), channels), frame.cut_hole(is_hole)
    made = model.inpaint(x[None], ~hole[None], y, passes=PASSES, generator=generator)[0].float().cpu()
    made = frame.put_back(_as_channels(made, len(seen)), seen)
    weight = softened(is_hole, round(frame.scale / 2))
    colours = torch.lerp(picture.colours, made, weight)
    return PictureFile(colours, None if picture.alpha is None else torch.where(is_hole, 1.0, picture.alpha))


def remade(
    model: Any, picture: PictureFile, start: float, y: Tensor | None = None, generator: torch.Generator | None = None
) -> PictureFile:
    """Return a picture like one, noised to the time ``start`` and made anew; a gray model leaves its colours alone."""
    channels, *size = shape_of(model)  # type: ignore[misc]
    frame = Frame.around(picture.size, (size[0], size[1]))
    seen = picture.on()
    x = _as_channels(frame.cut(seen), channels)
    made = model.sdedit(x[None], start, y, generator=generator)[0].float().cpu()
    if channels < len(seen):
        return PictureFile((seen + frame.put_back(made - x, 0 * seen[:1])).clamp(-1, 1), picture.alpha)
    return PictureFile(frame.put_back(_as_channels(made, len(seen)), seen), picture.alpha)


def _as_channels(image: Tensor, channels: int) -> Tensor:
    """Return an image (C, H, W) in gray or in three channels."""
    if len(image) == channels:
        return image
    if channels == 1:
        return luma(image)
    return image.expand(channels, -1, -1)


def _check_arguments(mask: str | Path | None, start: float | None, upscale: bool, num_samples: int, seed: int) -> None:
    options = {"mask": mask, "start": start, "upscale": upscale or None}
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        what = f"--{' and --'.join(given)} are given" if given else "it is not said what to do"
        raise ValueError(f"{what}: give one of --mask FILE (fill a hole), --start 0.5 (remake) and --upscale")
    check_range("start", start, above=0, below=1, hint="0.3 keeps most of the picture, 0.7 little")
    check_count("num_samples", num_samples, optional=False)
    check_count("seed", seed, at_least=0, optional=False)


def _outputs(output: Path, n: int) -> list[Path]:
    return [output] if n == 1 else [output.with_name(f"{output.stem}_{i}{output.suffix}") for i in range(n)]


def _check_can(model: GenerativeModule, source: str | Path, option: str) -> None:
    """Refuse an edit that a model cannot make."""
    shape, name = shape_of(model), type(model).__name__
    if not isinstance(model, Edits):
        raise ValueError(f"{source} holds a {name}, which edits no pictures: give the checkpoint of a diffusion model")
    if shape is None or shape[1:] == (1, 1) or shape[0] not in (1, 3):
        raise ValueError(f"{source} holds a model of data {shape}, not of pictures: give one of gray or colour images")
    condition, own = model.condition, type(model.condition).__name__
    if option == "upscale":
        if not isinstance(condition, LowResolutionCondition):
            raise ValueError(
                f"--upscale: {source} holds no model of super-resolution; train one by "
                "`lit-generative fit --config diffusion/super-resolution`"
            )
        return
    can_fill = option == "mask" and isinstance(condition, MaskedCondition)
    if condition is not None and model.num_classes is None and not can_fill:
        hint = "--upscale" if isinstance(condition, LowResolutionCondition) else "model.sample() in Python"
        raise ValueError(f"--{option}: {source} holds a model of {own}, which asks for {condition.asks}; take {hint}")


def _labels(model: GenerativeModule, n: int, labels: Labels | None) -> Tensor | None:
    """Return the classes of all variants, (n,); None for a model without."""
    found = class_indices(labels, model.num_classes, model.class_names)
    if model.num_classes is None:
        return None
    if found is None:
        last = model.num_classes - 1
        raise ValueError(f"labels=None: the model draws images of a class; say which, by --labels with 0 to {last}")
    return torch.tensor(found, device=model.device)[torch.arange(n) % len(found)]
