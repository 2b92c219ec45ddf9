"""A fixed random network as an extractor: for images of any kind, without a file, a download or a training."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_generative.evaluation.extractors import Extractor, as_rgb

__all__ = ["RandomExtractor"]

_WIDTHS = (32, 64, 128, 256)
_FEATURES = 64
_GRID = 2  # the last maps are averaged over each quarter of an image, so that it matters where things are
_LEAST, _MOST = 16, 64  # pixels of the shorter side: four strides leave one of 16


def _random(draw: np.random.RandomState, *shape: int, bound: float) -> Tensor:
    """Uniform numbers in [-bound, bound], the same on every platform."""
    return torch.from_numpy((2 * draw.random_sample(shape) - 1) * bound).float()


class _RandomNetwork(nn.Module):
    """Four convolutions of stride 2 with leaky ReLUs, and a projection of means and spreads of all maps."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = np.random.RandomState(seed)
        for i, (inputs, outputs) in enumerate(zip((3, *_WIDTHS[:-1]), _WIDTHS, strict=True)):
            weight = _random(draw, outputs, inputs, 4, 4, bound=(6 / (inputs * 16)) ** 0.5)  # He et al. 2015
            self.register_buffer(f"weight_{i}", weight)
        total = sum(_WIDTHS) + _WIDTHS[-1] * _GRID**2
        self.register_buffer("projection", _random(draw, total, _FEATURES, bound=(3 / total) ** 0.5))

    def forward(self, images: Tensor) -> Tensor:
        x, found = images, []
        for i in range(len(_WIDTHS)):
            padded = F.pad(x, (1, 1, 1, 1), "replicate")
            x = F.leaky_relu(F.conv2d(padded, self.get_buffer(f"weight_{i}"), stride=2), 0.2)
            found.append(x.flatten(2).std(dim=2, correction=0))
        found.append(F.adaptive_avg_pool2d(x, _GRID).flatten(1))
        return torch.cat(found, dim=1) @ self.get_buffer("projection")


class RandomExtractor(Extractor):
    """64 features of a convolutional network with fixed random weights, as Naeem et al. 2020 (arXiv:2002.09797) use it.

    It has learned nothing, so that it favours no kind of image: their section 4.1 finds random features (R64) no worse
    than ImageNet's on images unlike ImageNet's. But its distances mean something only beside others in the same
    features and on the same data. Images are brought to a shorter side of 64 pixels (bilinear, antialiased) if they
    are larger, and their pixels repeated if it is below 16; gray ones are repeated to three channels, as is the mean of
    another number of them.

    Args:
        seed: Of the weights; another one is another network.
    """

    max_batch = 250
    resizing = f"to a shorter side of {_MOST} if larger, bilinear, antialiased"

    def __init__(self, seed: int = 0) -> None:
        name = "random" if seed == 0 else f"random-{seed}"
        super().__init__(_RandomNetwork(seed), name, num_features=_FEATURES)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, 64) of float32 images of any number of channels and size."""
        images = as_rgb(images)
        side = min(images.shape[2:])
        if side > _MOST:
            size = [round(n * _MOST / side) for n in images.shape[2:]]
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        elif side < _LEAST:
            images = F.interpolate(images, scale_factor=-(-_LEAST // side), mode="nearest")
        return self.network(images)
