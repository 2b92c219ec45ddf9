"""How good the reconstructions of trained autoencoders are: error, sharpness, and their distance from real images.

Usage: python benchmarks/reconstructions.py CKPT [CKPT ...] [--images 2000]

Each model is given the test images of the data that it was trained on. Sharpness is the power of the upper half of the
spatial frequencies over that of the same images.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from lit_generative.checkpoints import data_of, read_checkpoint
from lit_generative.core import GenerativeModule
from lit_generative.description import rebuild
from lit_generative.evaluation import load_extractor, radial_spectrum, sharpness
from lit_generative.evaluation.metrics import sample_quality
from lit_generative.evaluation.restoration import psnr


def row(path: Path, count: int, extractor_name: str) -> str:
    """Return a row of the table."""
    data: Any = rebuild(data_of(read_checkpoint(path)))
    model: Any = GenerativeModule.load_from_checkpoint(path)
    extractor = load_extractor(extractor_name)
    real = torch.cat([batch["image"] for batch in data.loader("test", limit=count)])
    made = torch.cat([model.reconstruct(x) for x in real.split(100)])
    drawn = torch.cat([model.sample(100, generator=torch.Generator().manual_seed(i)) for i in range(count // 100)])
    sharp = [sharpness(radial_spectrum(images), radial_spectrum(real)) for images in (made, drawn)]
    features = [torch.cat([extractor(x) for x in images.split(100)]) for images in (real, made, drawn)]
    distances = [float(sample_quality(features[0], f)["frechet_distance"]) for f in features[1:]]
    nll = float(torch.cat([model.losses(x)["nelbo"].detach() for x in real.split(100)]).mean())
    found = " | ".join(f"{a:.2f} | {b:.2f}" for a, b in zip(sharp, distances, strict=True))
    return f"| {path.parents[1]} | {psnr(real, made).mean():.1f} | {found} | {nll:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=2000, help="test images, and samples")
    parser.add_argument("--extractor", default="fashion", help="of the features of the Fréchet distances")
    given = parser.parse_args()
    print("| run | PSNR (dB) | sharpness | distance | sharpness of samples | their distance | bound (nats) |")
    print("|---|---|---|---|---|---|---|")
    for path in given.checkpoints:
        print(row(path, given.images, given.extractor), flush=True)


if __name__ == "__main__":
    main()
