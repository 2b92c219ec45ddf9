"""The latent space of a checkpoint's model, written into a folder."""

import csv
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lit_generative.agreement import check_agreement
from lit_generative.checkpoints import read_checkpoint
from lit_generative.core import GenerativeModule
from lit_generative.data import GaussianPoints, ImageDataModule
from lit_generative.description import rebuild
from lit_generative.devices import device_named
from lit_generative.files import check_folder
from lit_generative.finite import check_finite_weights
from lit_generative.latent_space.explore import LatentSpace, explore
from lit_generative.latent_space.map import PosteriorMeans
from lit_generative.latent_space.selection import LatentRequest, Selection
from lit_generative.pictures import save_png

__all__ = ["draw_latents"]


def draw_latents(
    ckpt_path: Path,
    output: Path,
    request: LatentRequest,
    data: ImageDataModule | GaussianPoints | None = None,
    device: str = "auto",
) -> None:
    """Write the pictures of one model's latent space into a folder, and print what was measured.

    Args:
        ckpt_path: The model's checkpoint.
        output: The folder for the pictures; there must be nothing in it.
        request: What is to be shown.
        data: The images, if others than those that the model was trained on, or if these have moved.
        device: Where to compute, for instance cpu or cuda:1; auto: the GPU if there is one.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If there is something in the folder, or the images are needed and not known.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output={output} is there already; give another one, nothing is overwritten")
    saved = read_checkpoint(ckpt_path, "cpu")["lit_generative"]["data"]
    model = GenerativeModule.load_from_checkpoint(ckpt_path, map_location="cpu").to(device_named(device)).eval()
    check_finite_weights(model, ckpt_path)
    images = rebuild(saved) if data is None else data
    if images is not None:
        check_agreement(model, images)
    Selection(model, images, request)  # which refuses classes that are not there
    check_folder(output, "output")
    space = explore(model, images, request)
    files = _save(space, output)
    if space.numbers:
        table = Table(
            "", "value", title=f"{type(model).__name__} after {model.images_seen:,} images", title_justify="left"
        )
        for row in space.numbers.items():
            table.add_row(*row)
        Console().print(table)
    print(f"{', '.join(files)} in {output}")


def _save(space: LatentSpace, folder: Path) -> list[str]:
    """Write everything into ``folder``, which is made; return the files' names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in space.pictures.items():
        save_png(image, folder / f"{name}.png")
    for name, figure in space.figures.items():
        figure.savefig(folder / f"{name}.png")
    if space.latents is not None:
        _save_table(space.latents, folder / "latents.csv")
    if space.numbers:
        (folder / "numbers.json").write_text(json.dumps(space.numbers, indent=2))
    return sorted(path.name for path in folder.iterdir())


def _save_table(latents: PosteriorMeans, path: Path) -> None:
    """Write a table of the columns z_0, z_1, ..., label (empty where there is none) and split, a row an image."""
    labels = [""] * len(latents.z) if latents.labels is None else latents.labels.tolist()
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*(f"z_{i}" for i in range(latents.z.shape[1])), "label", "split"])
        for z, label in zip(latents.z.tolist(), labels, strict=True):
            table.writerow([*(f"{value:.7g}" for value in z), label, latents.split])
