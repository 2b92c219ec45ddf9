"""How fast the evaluation is, beside the libraries that define its numbers.

Usage: python benchmarks/fid.py [--images N] [--weights FILE.pth]

Features: images/s of our extractors and of torchmetrics' and torch-fidelity's Inception (with random weights if no file
is given, which takes the same time). Distance: seconds for the Fréchet distance of two Gaussians in 2,048 dimensions,
and the relative deviation from scipy's. Runs are alternated; the best of each counts.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from unittest import mock

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorInceptionV3
from torchmetrics.image.fid import NoTrainInceptionV3, _compute_fid

from lit_generative.data import ImageDataModule
from lit_generative.evaluation.distances import frechet_distance
from lit_generative.evaluation.features import load_extractor
from lit_generative.evaluation.published_features import InceptionExtractor


def best_seconds(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in seconds.items()}


def random_weights(path: str) -> str:
    download = "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url"
    with mock.patch(download), mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
        torch.save(FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict(), path)
    return path


def compare_features(num_images: int, weights: str) -> None:
    images = next(iter(ImageDataModule().loader("test", batch_size=2000)))["image"]
    few = images[:num_images]
    rgb = few.add(1).mul(127.5).round().byte().expand(-1, 3, -1, -1)
    torchmetrics = NoTrainInceptionV3("inception-v3-compat", ["2048"], weights, antialias=False)
    fidelity = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], weights)
    fashion, inception = load_extractor("fashion"), InceptionExtractor(weights)
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "fashion (ours)": (len(images), lambda: [fashion(part) for part in images.split(fashion.max_batch)]),
        "inception (ours)": (num_images, lambda: inception(few)),
        "inception (torchmetrics)": (num_images, lambda: torchmetrics(rgb)),
        "inception (torch-fidelity)": (num_images, lambda: fidelity(rgb)),
    }
    seconds = best_seconds({name: run for name, (_, run) in runs.items()}, rounds=3)
    for name, (count, _) in runs.items():
        print(f"{name:28} {count / seconds[name]:10,.1f} images/s")


def compare_distances(num_features: int) -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(2, 2 * num_features, num_features, generator=generator, dtype=torch.double)
    decay = torch.linspace(0, -3, num_features, dtype=torch.double).exp()  # as spectra of real features decay
    (mu1, cov1), (mu2, cov2) = ((x.mean(dim=0), x.T.cov()) for x in (samples[0] * decay, samples[1] * decay + 0.01))
    values: dict[str, float] = {}

    def scipys() -> None:
        root = scipy.linalg.sqrtm((cov1 @ cov2).numpy()).real
        values["scipy sqrtm"] = float((mu1 - mu2).square().sum() + np.trace((cov1 + cov2).numpy() - 2 * root))

    def record(name: str, distance: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Callable[[], None]:
        return lambda: values.update({name: distance(mu1, cov1, mu2, cov2).item()})

    runs = {"ours": record("ours", frechet_distance), "torchmetrics": record("torchmetrics", _compute_fid)}
    seconds = best_seconds(runs, rounds=3) | best_seconds({"scipy sqrtm": scipys}, rounds=1)
    for name, value in seconds.items():
        deviation = abs(values[name] / values["scipy sqrtm"] - 1)
        print(f"distance, {name:18} {value:10.2f} s   deviation {deviation:.1e}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32, help="images for Inception")
    parser.add_argument("--weights", help="file of InceptionV3 weights")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        compare_features(arguments.images, arguments.weights or random_weights(f"{folder}/weights.pth"))
    compare_distances(2048)


if __name__ == "__main__":
    main()
