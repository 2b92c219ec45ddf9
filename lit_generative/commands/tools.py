"""``sample``, ``extractor`` and ``recipes``: plain functions whose signatures are their options."""

from pathlib import Path

import torch
from jsonargparse import CLI
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm import tqdm

from lit_generative.commands.parsing import Parser
from lit_generative.core import GenerativeModule
from lit_generative.data import ImageDataModule
from lit_generative.pictures import save_png, tile
from lit_generative.recipes import recipes as shipped_recipes

__all__ = ["extractor", "recipes", "sample"]


def sample(arguments: list[str]) -> int:
    """Run ``lit-generative sample``."""
    CLI(draw_samples, args=arguments, as_positional=False, parser_class=Parser, prog="lit-generative sample")
    return 0


def extractor(arguments: list[str]) -> int:
    """Run ``lit-generative extractor``."""
    CLI(train_own_extractor, args=arguments, as_positional=False, parser_class=Parser, prog="lit-generative extractor")
    return 0


def recipes(arguments: list[str]) -> int:
    """Run ``lit-generative recipes``."""
    table = Table("recipe", "what it is", "measured", title_justify="left")
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
    taken = next(output.glob("sample_*.png"), None) or (grid if grid is not None and grid.exists() else None)
    if taken is not None:
        raise ValueError(f"{taken} is there already; give another output, nothing is overwritten")
    if num_samples < 1 or batch_size < 1:
        raise ValueError(f"num_samples={num_samples}, batch_size={batch_size}: both must be at least 1")
    model = GenerativeModule.load_from_checkpoint(ckpt_path, map_location="cpu").to(_device(device))
    y = _labels(model, num_samples, labels)
    generator = torch.Generator(model.device).manual_seed(seed)
    kept = []
    with tqdm(total=num_samples, unit="images", desc="samples", disable=None) as bar:
        for start in range(0, num_samples, batch_size):
            n = min(batch_size, num_samples - start)
            images = model.sample(n, None if y is None else y[start : start + n], generator=generator).cpu()
            for i, image in enumerate(images, start):
                save_png(image, output / f"sample_{i:06d}.png")
            kept += [images] if grid is not None else []
            bar.update(n)
    if grid is not None:
        save_png(tile(torch.cat(kept)), grid)
    print(f"{num_samples} images in {output}" + (f", all of them in {grid}" if grid else ""))


def train_own_extractor(data: ImageDataModule, output: Path, epochs: int = 20, seed: int = 0) -> None:
    """Train a classifier whose features evaluation can use (``--evaluation.extractor FILE.safetensors``).

    Args:
        data: Labelled images.
        output: The file to write, ending in .safetensors.
        epochs: Passes over the training images.
        seed: Seed of weights, order and augmentation.
    """
    from lit_generative.evaluation.train import train_extractor

    train_extractor(data, str(output), epochs=epochs, seed=seed)


def _labels(model: GenerativeModule, num_samples: int, labels: list[int] | None) -> Tensor | None:
    if model.num_classes is None:
        if labels is not None:
            raise ValueError(f"labels={labels}: the model is unconditional, it takes none")
        return None
    chosen = torch.tensor(labels or list(range(model.num_classes)))
    return chosen[torch.arange(num_samples) % len(chosen)]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise ValueError(f"device={name!r}: use auto, cpu, cuda or cuda:N") from None
