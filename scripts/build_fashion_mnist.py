"""Cut the embedded Fashion-MNIST subset from the full set: class-balanced, with a fixed seed, as PNG in Parquet.

Usage: python scripts/build_fashion_mnist.py FOLDER_OF_IDX_FILES

The folder holds the four IDX files of Fashion-MNIST, gzipped or not; Debian's package ``dataset-fashion-mnist``
installs them in /usr/share/datasets/fashion-mnist.
"""

import argparse
import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from lit_generative.data.idx import find_idx, read_idx

CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
PER_CLASS = {"train": 1_000, "test": 200}
SEED = 2017
TARGET = Path(__file__).parents[1] / "lit_generative" / "data" / "fashion_mnist"


def draw(labels: np.ndarray, per_class: int, rng: np.random.Generator) -> np.ndarray:
    chosen = [rng.choice(np.flatnonzero(labels == c), per_class, replace=False) for c in range(len(CLASSES))]
    return rng.permutation(np.concatenate(chosen))


def to_png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the IDX files")
    files = find_idx(parser.parse_args().folder.iterdir())
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    TARGET.mkdir(exist_ok=True)
    for split, per_class in PER_CLASS.items():
        images, labels = read_idx(files[split]["images"]), read_idx(files[split]["labels"])
        chosen = draw(labels, per_class, np.random.default_rng(SEED))
        rows = {"image": [{"bytes": to_png(images[i])} for i in chosen], "label": labels[chosen].astype(int)}
        path = TARGET / f"{split}.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
        print(f"{path.relative_to(TARGET.parents[2])}: {len(chosen):,} images, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
