"""``latent``: the latent space of one model, as pictures, a table and numbers."""

import csv
import json
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from lit_generative.checkpoints import read_checkpoint
from lit_generative.commands.tools import device_named
from lit_generative.core import GenerativeModule
from lit_generative.data import GaussianPoints, ImageDataModule
from lit_generative.description import rebuild
from lit_generative.latent_space.explore import Request, Space, explore
from lit_generative.latent_space.map import Latents
from lit_generative.pictures import save_png
from lit_generative.training.parser import Parser

__all__ = ["draw_latents", "latent"]


def latent(arguments: list[str]) -> int:
    """Run ``lit-generative latent``."""
    parser = Parser(
        prog="lit-generative latent",
        allow_abbrev=False,
        description="Lay open the latent space of one model: reconstructions, traversals and a map of a VAE, "
        "interpolations of every family, the denoising of a diffusion model; with a table of a VAE's latents.",
    )
    parser.add_argument("ckpt_path", type=Path, metavar="CKPT", help="The model's checkpoint.")
    parser.add_function_arguments(draw_latents, skip={"ckpt_path"})
    draw_latents(**parser.instantiate(parser.parse_args(arguments)).as_dict())
    return 0


def draw_latents(
    ckpt_path: Path,
    output: Path,
    num_images: int = 8,
    steps: int = 10,
    seed: int = 0,
    labels: list[int] | None = None,
    split: Literal["train", "val", "test"] = "test",
    max_images: int = 10_000,
    data: ImageDataModule | GaussianPoints | None = None,
    device: str = "auto",
) -> None:
    """Write the pictures of one model's latent space into a folder, and print what was measured.

    Args:
        ckpt_path: The model's checkpoint.
        output: The folder for the pictures; there must be nothing in it.
        num_images: Rows of each picture.
        steps: Images of each path.
        seed: Decides which images and noises are shown.
        labels: Classes of the rows, repeated in turn; by default all of them.
        split: The images that are shown, and whose latents go into latents.csv.
        max_images: At most so many images of a split are encoded for the table, the map and the numbers.
        data: The images, if others than those that the model was trained on, or if these have moved.
        device: Where to compute, for instance cpu or cuda:1; auto: the GPU if there is one.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output={output} is there already; give another one, nothing is overwritten")
    for name, value, least in (("num_images", num_images, 1), ("steps", steps, 2), ("max_images", max_images, 20)):
        if value < least:
            raise ValueError(f"{name}={value} is too small; it is at least {least}")
    saved = read_checkpoint(ckpt_path, "cpu")["lit_generative"]["data"]
    model = GenerativeModule.load_from_checkpoint(ckpt_path, map_location="cpu").to(device_named(device)).eval()
    request = Request(num_images, steps, seed, labels, split, max_images)
    space = explore(model, rebuild(saved) if data is None else data, request)
    files = save(space, output)
    if space.numbers:
        table = Table(title=f"{type(model).__name__} after {model.images_seen:,} images", title_justify="left")
        table.add_column("")
        table.add_column("value")
        for row in space.numbers.items():
            table.add_row(*row)
        Console().print(table)
    print(f"{', '.join(files)} in {output}")


def save(space: Space, folder: Path) -> list[str]:
    """Write everything into ``folder``, which is made; return the files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in space.pictures.items():
        save_png(image, folder / f"{name}.png")
    for name, figure in space.figures.items():
        figure.savefig(folder / f"{name}.png")
    if space.latents is not None:
        save_latents(space.latents, folder / "latents.csv")
    if space.numbers:
        (folder / "numbers.json").write_text(json.dumps(space.numbers, indent=2))
    return sorted(path.name for path in folder.iterdir())


def save_latents(latents: Latents, path: Path) -> None:
    """Write a table of the columns z_0, z_1, ..., label (empty where there is none) and split, a row an image."""
    labels = [""] * len(latents.z) if latents.labels is None else latents.labels.tolist()
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*(f"z_{i}" for i in range(latents.z.shape[1])), "label", "split"])
        for z, label in zip(latents.z.tolist(), labels, strict=True):
            table.writerow([*(f"{value:.7g}" for value in z), label, latents.split])
