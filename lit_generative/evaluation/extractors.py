"""Feature extractors: frozen networks in whose features sets of images are compared.

They know nothing of the models that are evaluated, and are no part of them: a plain object holds them.
"""

import copy
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity import FeatureExtractorInceptionV3

from lit_generative.checkpoints import read_weights
from lit_generative.evaluation.identity import probe_images, tensor_digest, weights_digest
from lit_generative.nn.classifier import Classifier

__all__ = ["ClassifierExtractor", "Extractor", "InceptionExtractor", "file_digest"]

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


class InceptionExtractor(Extractor):
    """torch-fidelity's InceptionV3 (TensorFlow's of 2015-12-05), the network of the FID.

    Images are rounded to 8 bits, gray ones repeated to three channels, and resized as TensorFlow 1 did.

    Args:
        weights: File of weights, as torch-fidelity and pytorch-fid have it.
        layer: Which features: those of the last pooling (2048), or of an earlier one (64, 192, 768).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not one of Inception's weights; no code in it is run.
    """

    max_batch = 32
    resizing = "299x299, bilinear as in TensorFlow 1 (torch-fidelity)"

    def __init__(self, weights: str | Path, layer: int = 2048) -> None:
        safe = io.BytesIO()  # torch-fidelity itself would run code in the file
        torch.save(read_weights(weights, "extractor inception", "cpu"), safe)
        safe.seek(0)
        try:
            network = FeatureExtractorInceptionV3("inception-v3-compat", [str(layer)], safe)
        except (RuntimeError, TypeError, AttributeError):  # other names or shapes, or no weights at all
            raise ValueError(f"extractor inception: {weights} holds other weights than InceptionV3's") from None
        is_standard = layer == 2048
        name = "inception" if is_standard else f"inception-{layer}"
        super().__init__(network, name, file_digest(Path(weights)), layer)
        self.metric_names = {"frechet_distance": "fid", "kernel_distance": "kid"} if is_standard else {}

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of float32 images with one or three channels."""
        pixels = images.add(1).mul(127.5).round().clamp(0, 255).byte()
        return self.network(pixels.expand(-1, 3, -1, -1))[0]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _module_digest(module: nn.Module) -> str:
    """SHA-256 of a module's printed structure and of its state dict."""
    return hashlib.sha256(f"{module!r} {weights_digest(module)}".encode()).hexdigest()
