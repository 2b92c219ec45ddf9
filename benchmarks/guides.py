"""A trained diffusion model sampled with former states of itself as guides, of different ages, at different scales.

Usage: python benchmarks/guides.py RUN FOLDER [--ages 7680 25856] [--scales 2.5 4] [--image-size 32] [--samples 400]

RUN is the folder of a run of `diffusion/images` with snapshots of its weights, which a file of options adds, such as
`fit --config diffusion/images --config snapshots.yaml` with
`trainer: {callbacks: [{class_path: EMA, init_args: {decay: 0.999, part: network}}, {class_path: PowerEMA}]}`. The
guide of an age is the snapshot nearest to it. Distances are to the validation and test images, in ImageNet features.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lit_generative import ImageDataModule
from lit_generative.core import GenerativeModule
from lit_generative.diffusion import AutoGuidance
from lit_generative.evaluation import load_extractor
from lit_generative.evaluation.metrics import sample_quality

BATCH = 100
SIGMA_REL = 0.1  # of the snapshots that are taken


def features(images: Tensor, extractor: Any) -> Tensor:
    """Return the features (N, D) of images (N, C, H, W)."""
    return torch.cat([extractor(batch) for batch in images.split(BATCH)])


def snapshots(run: Path, images_per_step: float) -> dict[int, Path]:
    """Return the files of weights by how many images they have seen."""
    files = run.glob(f"power_ema/*_{SIGMA_REL}.safetensors")
    return {round(int(file.name.split("_")[0]) * images_per_step): file for file in files}


def put(guidance: AutoGuidance, age: int, file: Path) -> None:
    """Let a snapshot guide."""
    start = "network."
    weights = {name.removeprefix(start): w for name, w in load_file(file).items() if name.startswith(start)}
    assert guidance.guide is not None
    guidance.guide.load_state_dict(weights, strict=False)
    guidance.kept_at.fill_(age)


def row(model: Any, real: Tensor, extractor: Any, count: int) -> str:
    """Sample, and return a row of the table."""
    generator = torch.Generator().manual_seed(0)
    fake = torch.cat([model.sample(BATCH, generator=generator) for _ in range(0, count, BATCH)])
    found = sample_quality(real, features(fake, extractor))
    quality = f"{float(found['kernel_distance']):.2f} | {float(found['recall']):.2f}"
    return f"| {int(model.guidance.kept_at):,} | {model.guidance.scale:g} | {quality} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", help="the images that it was trained on")
    parser.add_argument("--ages", type=int, nargs="*", default=[], help="of guides, in images, beside the run's own")
    parser.add_argument("--scales", type=float, nargs="+", default=[4.0])
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=400)
    given = parser.parse_args()
    model: Any = GenerativeModule.load_from_checkpoint(given.run / "checkpoints" / "last.ckpt").eval()
    step = torch.load(given.run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    data, extractor = ImageDataModule(given.folder, image_size=given.image_size), load_extractor("imagenet")
    held_out = torch.cat([batch["image"] for split in ("val", "test") for batch in data.loader(split)])  # type: ignore[arg-type]
    real, files = features(held_out, extractor), snapshots(given.run, model.images_seen / step)
    print("| guide after images | scale | kernel distance | recall |\n|---|---|---|---|")
    for age in [None, *given.ages]:
        if age is not None:
            nearest = min(files, key=lambda seen: abs(seen - age))
            put(model.guidance, nearest, files[nearest])
        for model.guidance.scale in given.scales:
            print(row(model, real, extractor, given.samples), flush=True)


if __name__ == "__main__":
    main()
