"""Feature extractors: frozen networks in whose features sets of images are compared.

They know nothing of the models that are evaluated, and are no part of them: a plain object holds them.
"""

import copy
import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_generative.evaluation.identity import probe_images, tensor_digest, weights_digest
from lit_generative.nn.classifier import Classifier

__all__ = ["ClassifierExtractor", "Extractor", "as_rgb"]

_SAME = 1e-3  # of the largest feature: what a GPU's sums in another order may differ by, and more


class Extractor(nn.Module):
    """A frozen network, in evaluation mode forever, that turns images into features.

    Args:
        network: Maps images (B, C, H, W) in [-1, 1] to features (B, D). It is copied.
        name: What to call it in reports; by default, its class.
        digest: SHA-256 (hexadecimal) that identifies it; by default, of the network's structure and state dict.
        num_features: Features an image, D; by default None until the first images have been seen.
        class_names: If features can be classified (see :meth:`classify`), the names of the classes.
    """

    _anchor: Tensor
    max_batch: int = 1000  # images that fit into a modest memory at a time
    resizing: str = "none"
    has_gaussian_distance: bool = False  # whether papers report an MMD with a Gaussian kernel in such features

    def __init__(
        self,
        network: nn.Module,
        name: str | None = None,
        digest: str | None = None,
        num_features: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.name = name or type(network).__name__
        self.digest = digest or _module_digest(network)
        self.num_features = num_features
        self.class_names = None if class_names is None else list(class_names)
        self.register_buffer("_anchor", torch.empty(0), persistent=False)  # a module without weights has a place too
        self.metric_names: dict[str, str] = {}  # what the distances are called in these features
        self.train(False)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._anchor.device

    def train(self, mode: bool = True) -> "Extractor":
        """Stay in evaluation mode, whatever ``mode`` is: an enclosing ``train()`` must not move batch statistics."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features, float32 (B, D), of images (B, C, H, W) in [-1, 1]; never in a training run's reduced precision.

        Raises:
            ValueError: If the network does not give one vector an image.
        """
        with torch.autocast(images.device.type, enabled=False):
            features = self.features(images.float())
        if features.ndim != 2 or len(features) != len(images):
            shapes = f"{tuple(features.shape)} for images {tuple(images.shape)}"
            raise ValueError(f"extractor {self.name!r} gives features {shapes}; they must have the shape (B, D)")
        self.num_features = features.shape[1]
        return features.float()

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of float32 images; what a subclass overrides."""
        return self.network(images).flatten(1)

    def fingerprint(self, image_shape: tuple[int, int, int]) -> str:
        """Return a digest of the features of fixed images (C, H, W), on the device where the extractor is.

        It follows what ``digest`` misses: code, and attributes that are neither parameters nor buffers.

        Raises:
            ValueError: If the same images get other features a second time.
        """
        probes = probe_images(image_shape).to(self.device)
        first, second = self(probes), self(probes)
        scale = float(first[first.isfinite()].abs().max()) if first.isfinite().any() else 1.0
        if first.shape != second.shape or not torch.allclose(first, second, rtol=0, atol=_SAME * scale, equal_nan=True):
            raise ValueError(
                f"extractor {self.name!r} gives the same images other features a second time; make it deterministic"
            )
        return tensor_digest(first)

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, K) of features (B, D) that have been computed already.

        Raises:
            TypeError: If the extractor is no classifier (its ``class_names`` are None).
        """
        raise TypeError(f"extractor {self.name!r} has no classes")

    def metrics(self, features: Tensor) -> dict[str, Tensor]:
        """More about samples than their distances, by name: scalars from the features (M, D) of all samples.

        None by default; a subclass adds what is known of its features.
        """
        return {}


class ClassifierExtractor(Extractor):
    """The features of a :class:`~lit_generative.nn.classifier.Classifier`, which tells the classes of images as well.

    Images of another size are resized (bilinear, antialiased), other channels are repeated or averaged.

    Args:
        network: A trained classifier.
        name: What to call it in reports.
        digest: SHA-256 of its file.
        class_names: Names of its classes.
    """

    network: Classifier
    max_batch = 250

    def __init__(self, network: Classifier, name: str, digest: str, class_names: Sequence[str]) -> None:
        super().__init__(network, name, digest, network.num_features, class_names)
        self.network.to(memory_format=torch.channels_last)  # three times as fast on a CPU
        self.resizing = "x".join(map(str, network.image_shape[1:])) + ", bilinear, antialiased"

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of float32 images."""
        channels, *size = self.network.image_shape
        if images.shape[1] != channels:
            images = images.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1)
        if list(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        return self.network.features(images.contiguous(memory_format=torch.channels_last))

    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, K) of features (B, D)."""
        return self.network.head(features)


def as_rgb(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W): gray ones three times, those of another number of channels by their mean."""
    return images if images.shape[1] == 3 else images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def _module_digest(module: nn.Module) -> str:
    """SHA-256 of a module's printed structure and of its state dict."""
    return hashlib.sha256(f"{module!r} {weights_digest(module)}".encode()).hexdigest()
