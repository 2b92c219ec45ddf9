"""Our recipes for any images beside the usual training loops, on one folder, for the same minutes each, in one table.

Usage: pip install diffusers denoising-diffusion-pytorch
       python benchmarks/peers.py FOLDER [--minutes 10] [--image-size 32] [--only diffusion/images diffusers]

Each is trained at three learning rates, its usual one, half and twice that, and the best by kernel distance on the
validation images is measured on the test images, by `evaluate_samples`, in two extractors' features. Where ours train
on the training images alone, so do the others. diffusers' models and those of denoising-diffusion-pytorch are sampled
in 50 steps of DDIM, since their thousand take hours on a CPU. What is done is not done again.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from peer_loops import train_dcgan, train_ddp, train_diffusers, train_plain_vae
from torch import Tensor

from lit_generative import ImageDataModule
from lit_generative.comparison.evaluate import evaluate_samples
from lit_generative.core import GenerativeModule
from lit_generative.pictures import save_png
from lit_generative.training.budget import TimedTraining

Draw = Callable[[int], Tensor]  # from a number to images in [-1, 1]
FACTORS = (0.5, 1.0, 2.0)  # of the usual learning rate
BATCH = 50  # images drawn at a time


@dataclass
class Peer:
    """A loop: its usual learning rate, and what trains it on images (N, C, H, W) for so many seconds."""

    rate: float
    train: Callable[[Tensor, float, float], Draw]


@dataclass
class Ours:
    """A recipe, its learning rate, and the options that set it."""

    rate: float
    options: tuple[str, ...]


OURS = {
    "diffusion/images": Ours(4e-3, ("model.optimizer.init_args.lr",)),
    "gan/images": Ours(8e-4, ("model.generator_optimizer.init_args.lr", "model.discriminator_optimizer.init_args.lr")),
    "vae/images": Ours(2e-3, ("model.optimizer.init_args.lr",)),
}
PEERS = {
    "diffusers": Peer(1e-4, train_diffusers),
    "denoising-diffusion-pytorch": Peer(8e-5, train_ddp),
    "dcgan": Peer(2e-4, train_dcgan),
    "plain vae": Peer(1e-3, train_plain_vae),
}


def write_images(batches: list[Tensor], folder: Path) -> None:
    """Write images as PNG files, numbered."""
    for i, image in enumerate(torch.cat(batches)):
        save_png(image, folder / f"{i:06d}.png")


def export(data: ImageDataModule, root: Path) -> None:
    """Write the three splits into folders, unless they are there."""
    for split in ("train", "val", "test"):
        if not (root / split).is_dir():
            write_images([batch["image"] for batch in data.loader(split)], root / split)  # type: ignore[arg-type]


def our_samples(name: str, factor: float, given: argparse.Namespace, folder: Path) -> Draw:
    """Train a recipe, or find it trained, and return what draws."""
    ours = OURS[name]
    rates = [f"--{option}={factor * ours.rate:g}" for option in ours.options]
    data = ["--data.dataset", given.folder, "--data.image_size", str(given.image_size), "--evaluation.extractor=random"]
    checkpoint = TimedTraining(name, {"minutes": given.minutes}, folder, [*data, *rates]).train(0).checkpoint
    model = GenerativeModule.load_from_checkpoint(checkpoint)
    generator = torch.Generator().manual_seed(0)
    return lambda n: model.sample(n, generator=generator)


def samples_of(name: str, factor: float, given: argparse.Namespace, images: Tensor) -> Path:
    """Return the folder of samples of one training, which is done if there is none."""
    run = given.output / f"{slug(name)}-{factor:g}"
    if not (run / "minutes.json").is_file():
        start = time.perf_counter()
        torch.manual_seed(0)
        if name in OURS:
            draw = our_samples(name, factor, given, run)
        else:
            draw = PEERS[name].train(images, factor * PEERS[name].rate, 60 * given.minutes)
        minutes = (time.perf_counter() - start) / 60
        batches = [draw(min(BATCH, given.samples - done)).cpu() for done in range(0, given.samples, BATCH)]
        write_images(batches, run / "samples")
        (run / "minutes.json").write_text(json.dumps({"minutes": minutes}))
    return run / "samples"


def measure(samples: Path, split: str, extractor: str, given: argparse.Namespace) -> dict[str, float]:
    """Return the metrics of samples against a split."""
    folders = {name: str(given.output / "data" / name) for name in (split, "train")}
    output = samples.parent / f"{split}-{extractor}"
    found = evaluate_samples(str(samples), folders[split], folders["train"], output=output, extractor=extractor)
    return found.runs[0].metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="images, in a folder for each class or not")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--only", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--factors", nargs="+", type=float, default=FACTORS, help="of the usual learning rates")
    parser.add_argument("--output", type=Path, default=Path("runs/peers"))
    given = parser.parse_args()
    data = ImageDataModule(given.folder, image_size=given.image_size)
    export(data, given.output / "data")
    images = torch.cat([batch["image"] for batch in data.loader("train")])
    for name in given.only:
        (given.output / f"{slug(name)}.md").write_text("\n".join(rows(name, given, images)) + "\n")
    done = [given.output / f"{slug(name)}.md" for name in (*OURS, *PEERS)]
    head = "| model | learning rate | features | kernel distance | recall | memorised |\n" + "|---" * 6 + "|\n"
    table = head + "".join(path.read_text() for path in done if path.is_file())  # those of former calls, too
    (given.output / "table.md").write_text(table)
    print(table)


def rows(name: str, given: argparse.Namespace, images: Tensor) -> list[str]:
    """Return a model's rows of the table, at the best of its learning rates."""
    by_rate = {factor: samples_of(name, factor, given, images) for factor in given.factors}
    quality = {f: measure(path, "val", "imagenet", given)["kernel_distance"] for f, path in by_rate.items()}
    best = min(quality, key=quality.__getitem__)
    found = []
    for extractor in ("imagenet", "random"):
        metrics = measure(by_rate[best], "test", extractor, given)
        cells = [f"{metrics[metric]:.3g}" for metric in ("kernel_distance", "recall", "memorised")]
        rate = best * {**OURS, **PEERS}[name].rate
        found.append(f"| {name} | {rate:g} | {extractor} | {' | '.join(cells)} |")
    return found


def slug(name: str) -> str:
    """Return a name as that of a file."""
    return name.replace("/", "-").replace(" ", "-")


if __name__ == "__main__":
    main()
