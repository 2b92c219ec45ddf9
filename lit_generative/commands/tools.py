"""``sample``, ``extractor`` and ``recipes``: plain functions whose signatures are their options."""

import inspect
from pathlib import Path
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor
from tqdm import tqdm

from lit_generative.core import GenerativeModule
from lit_generative.data import ImageDataModule
from lit_generative.pictures import are_points, picture, save_csv, save_png
from lit_generative.recipes import recipes as shipped_recipes
from lit_generative.training.extractor import train_extractor
from lit_generative.training.parser import Parser

__all__ = ["device_named", "extractor", "recipes", "sample"]


def sample(arguments: list[str]) -> int:
    """Run ``lit-generative sample``."""
    parser = Parser(
        prog="lit-generative sample", allow_abbrev=False, description="Draw images from a trained model into PNG files."
    )
    parser.add_function_arguments(draw_samples)
    draw_samples(**parser.instantiate_classes(parser.parse_args(arguments)).as_dict())
    return 0


def extractor(arguments: list[str]) -> int:
    """Run ``lit-generative extractor``."""
    parser = Parser(
        prog="lit-generative extractor", allow_abbrev=False, description="Train a feature extractor on labelled images."
    )
    parser.add_class_arguments(ImageDataModule, "data")
    parser.add_function_arguments(train_extractor, skip={"data"})
    options = parser.instantiate_classes(parser.parse_args(arguments))
    train_extractor(**{name: options[name] for name in inspect.signature(train_extractor).parameters})
    return 0


def recipes(arguments: list[str]) -> int:
    """Run ``lit-generative recipes``."""
    Parser(prog="lit-generative recipes", description="List the recipes that ship.").parse_args(arguments)
    table = Table(Column("recipe", no_wrap=True), "what it is", "measured", title_justify="left")
    for recipe in shipped_recipes():
        table.add_row(recipe.name, recipe.summary, recipe.cost)
    Console().print(table)
    return 0


def draw_samples(
    ckpt_path: Path,
    output: Path,
    num_samples: int = 64,
    seed: int = 0,
    labels: list[int] | None = None,
    grid: Path | None = None,
    batch_size: int = 250,
    device: str = "auto",
) -> None:
    """Draw images from a trained model into PNG files of the data's own size and channels, 8 bit.

    Points of the plane go into one file, samples.csv.

    Args:
        ckpt_path: The model's checkpoint.
        output: The folder for the images; it must not have samples in it already.
        num_samples: How many images.
        seed: Decides which images are drawn (together with batch_size).
        labels: Classes of a conditional model, repeated in turn; by default all of them.
        grid: A PNG file for one picture of all samples.
        batch_size: Images drawn at a time.
        device: Where to draw, for instance cpu or cuda:1; auto: the GPU if there is one.
    """
    taken = next(output.glob("sample[s_]*"), None) or (grid if grid is not None and grid.exists() else None)
    if taken is not None:
        raise ValueError(f"{taken} is there already; give another output, nothing is overwritten")
    if output.exists() and not output.is_dir():
        raise ValueError(f"output={output} is a file; give a folder")
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"num_samples={num_samples}, batch_size={batch_size}: both must be at least 1")
    model = GenerativeModule.load_from_checkpoint(ckpt_path, map_location="cpu").to(device_named(device))
    y = _labels(model, num_samples, labels)
    generator = torch.Generator(model.device).manual_seed(seed)
    kept, seconds = [], 0.0
    with tqdm(total=num_samples, unit="images", desc="samples", disable=None) as bar:
        for start in range(0, num_samples, batch_size):
            n = min(batch_size, num_samples - start)
            begin = perf_counter()
            images = model.sample(n, None if y is None else y[start : start + n], generator=generator).cpu()
            seconds += perf_counter() - begin
            if not are_points(images):
                for i, image in enumerate(images, start):
                    save_png(image, output / f"sample_{i:06d}.png")
            kept += [images] if grid is not None or are_points(images) else []
            bar.update(n)
    if are_points(images):
        save_csv(torch.cat(kept), output / "samples.csv")
    if grid is not None:
        save_png(picture(torch.cat(kept)), grid)
    print(
        f"{num_samples} images in {output}, drawn at {num_samples / seconds:,.3g} images/s"
        + (f", all of them in {grid}" if grid else "")
    )


def _labels(model: GenerativeModule, num_samples: int, labels: list[int] | None) -> Tensor | None:
    if model.num_classes is None:
        if labels is not None:
            raise ValueError(f"labels={labels}: the model is unconditional, it takes none")
        return None
    chosen = torch.tensor(labels or list(range(model.num_classes)))
    return chosen[torch.arange(num_samples) % len(chosen)]


def device_named(name: str) -> torch.device:
    """Return a device by its name, or the best there is for ``auto``; a ValueError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):
        raise ValueError(f"device={name!r} is not there: use auto, cpu, cuda or cuda:N") from None
