"""Train the embedded ``fashion`` extractor on all 60,000 training images of the full Fashion-MNIST.

Usage: python scripts/train_fashion_extractor.py FOLDER_OF_IDX_FILES

It writes lit_generative/evaluation/weights/fashion.safetensors and prints the SHA-256 that
lit_generative/evaluation/features.py has to record. Ten epochs took 587 s on two busy cores.
"""

import argparse
import hashlib
from pathlib import Path

from lit_generative import ImageDataModule
from lit_generative.training.extractor import train_extractor

TARGET = Path(__file__).parents[1] / "lit_generative" / "evaluation" / "weights" / "fashion.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the four IDX files, gzipped or not")
    data = ImageDataModule(parser.parse_args().folder, val_split="test", batch_size=256)  # nothing set aside of the 60k
    names = ImageDataModule("fashion-mnist").class_names
    TARGET.unlink(missing_ok=True)  # the former one is in the history of the repository
    train_extractor(data, str(TARGET), epochs=10, seed=0, class_names=names, precision="bf16-mixed")
    print(hashlib.sha256(TARGET.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
