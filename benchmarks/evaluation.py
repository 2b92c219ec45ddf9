"""What the evaluation notices and how far its numbers can be trusted: the tables of docs/evaluation.md.

    python benchmarks/evaluation.py floor      # the floor's size correction, on test images
    python benchmarks/evaluation.py losses     # which losses of quality each extractor notices
    python benchmarks/evaluation.py bold       # how often chance alone makes a number bold

All on the embedded Fashion-MNIST, a minute or two on one core.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_generative import ImageDataModule
from lit_generative.evaluation import load_extractor
from lit_generative.evaluation.extractors import Extractor
from lit_generative.evaluation.floor import real_floor
from lit_generative.evaluation.memorisation import copies_in_features
from lit_generative.evaluation.metrics import sample_quality
from lit_generative.report.statistics import LOWER, Number, holm

EXTRACTORS = ("fashion", "imagenet", "random")
METRICS = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")


def images_and_labels(split: str) -> tuple[Tensor, Tensor]:
    batches = list(ImageDataModule().loader(split, batch_size=500))  # type: ignore[arg-type]
    return torch.cat([batch["image"] for batch in batches]), torch.cat([batch["label"] for batch in batches])


def features_of(extractor: Extractor, images: Tensor) -> Tensor:
    return torch.cat([extractor(part) for part in images.split(extractor.max_batch)])


def floor() -> None:
    """Print metrics between halves of the test images, by the halves' size."""
    images, _ = images_and_labels("test")
    print("| extractor | images a part | n times Fréchet distance | precision | recall | density | coverage |")
    print("|---|---|---|---|---|---|---|")
    for name in EXTRACTORS:
        features = features_of(load_extractor(name), images)
        for n in (62, 125, 250, 500, 1000):
            found = real_floor(
                features[torch.randperm(2000, generator=torch.Generator().manual_seed(n))[: 2 * n]], 2 * n
            )
            distance = float(found["frechet_distance"][0]) * 2 * n  # the correction is a half, of parts of n
            rest = [f"{found[metric][0]:.3f}" for metric in METRICS[2:]]
            print(f"| {name} | {n} | {distance:.0f} | {' | '.join(rest)} |")


def spoilt(images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return real images with one loss of quality each."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    few = torch.randint(100, (len(images),), generator=torch.Generator().manual_seed(1))
    return {
        "none: other test images": images,
        "blur, 3 x 3 mean": F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1),
        "noise, 0.1": (images + 0.1 * noise).clamp(-1, 1),
        "two of ten classes missing": images[labels > 1],
        "100 images again and again": images[few],
        "mirrored": images.flip(-1),
    }


def losses() -> None:
    """Print each metric of spoilt test images against the other half of the test images."""
    images, labels = images_and_labels("test")
    training, _ = images_and_labels("train")
    names = "Fréchet distance | kernel distance | precision | recall | density | coverage | memorised | authentic"
    print(f"| loss of quality | extractor | {names} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    cases = spoilt(images[1000:], labels[1000:]) | {"copies of training images": training[:1000]}
    cases["noisy copies of training images"] = spoilt(training[:1000], labels[:1000])["noise, 0.1"]
    cases["mirrored copies of training images"] = training[:1000].flip(-1)
    extractors = {name: load_extractor(name) for name in EXTRACTORS}
    known = {name: [features_of(e, part) for part in (images[:1000], training)] for name, e in extractors.items()}
    for case, changed in cases.items():
        for name, extractor in extractors.items():
            real, seen = known[name]
            fake = features_of(extractor, changed)
            found = sample_quality(real, fake)
            copies = {key: values.mean() for key, values in copies_in_features(fake, seen).items()}
            cells = [f"{float(found[metric]):.3g}" for metric in METRICS]
            cells += [f"{float(copies[key]):.2g}" for key in ("memorised_features", "authenticity")]
            print(f"| {case} | {name} | {' | '.join(cells)} |")


def bold() -> None:
    """Print how often a report of models without any difference has a bold number, and how large a lead is found."""
    print(
        "| seeds | models | false bold, 14 columns | false bold, spreads 1 and 10 | lead found in half of the reports |"
    )
    print("|---|---|---|---|---|")
    for seeds in (2, 3, 5):
        for models in (2, 3):
            even, uneven = (false_bold(seeds, models, spread) for spread in (1.0, 10.0))
            print(f"| {seeds} | {models} | {even:.1%} | {uneven:.1%} | {lead_found(seeds):.0f} spreads |")


def false_bold(seeds: int, models: int, spread: float, columns: int = 14, tables: int = 500) -> float:
    draw = np.random.default_rng(0)
    spreads = [1.0] * (models - 1) + [spread]
    return sum(_any_bold(draw, seeds, [0.0] * models, spreads, columns) for _ in range(tables)) / tables


def lead_found(seeds: int, columns: int = 14, tables: int = 60) -> float:
    """Return the least lead in one column, in spreads, that is bold in half of the reports."""
    for lead in (1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 130, 200, 300, 500):
        draw = np.random.default_rng(1)
        if sum(_any_bold(draw, seeds, [0.0, lead], [1.0, 1.0], columns) for _ in range(tables)) > tables / 2:
            return lead
    return float("inf")


def _any_bold(draw: np.random.Generator, seeds: int, means: list[float], spreads: list[float], columns: int) -> bool:
    chances = {}
    for column in range(columns):
        shifts = means if column == 0 else [0.0] * len(means)
        numbers = [
            Number.of((mean + spread * draw.standard_normal(seeds)).tolist(), [None] * seeds)
            for mean, spread in zip(shifts, spreads, strict=True)
        ]
        first, *others = sorted(numbers, key=lambda number: number.mean)
        chances[str(column)] = min(len(numbers) * max(first.chance(other, LOWER) or 0.0 for other in others), 1.0)
    return bool(holm(chances))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {function.__name__: function for function in (floor, losses, bold)}
    parser.add_argument("table", choices=tables)
    tables[parser.parse_args().table]()


if __name__ == "__main__":
    main()
