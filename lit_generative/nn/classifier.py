"""A small convolutional classifier whose features measure how far generated images are from real ones."""

from collections.abc import Sequence

from torch import Tensor, nn

from lit_generative.checks import check_count
from lit_generative.description import Described

__all__ = ["Classifier"]


class Classifier(Described, nn.Module):
    """A plain convolutional network for images of any size from 8 pixels on.

    Strided stages shrink the image to about 8 pixels, its mean over positions is mapped to the features, and the
    classes are linear in those. The features end in a batch normalisation without weights, so they have mean 0 and
    standard deviation 1 over the training set, by the statistics that it stores.

    Args:
        image_shape: Channels, height and width of the images it is trained on.
        num_classes: Classes, K.
        width: Channels of the first stage; later stages have up to three times as many.
        num_features: Features an image, D.

    Raises:
        ValueError: If the images are smaller than 8 pixels, or there are fewer than two classes.
    """

    def __init__(self, image_shape: Sequence[int], num_classes: int, width: int = 24, num_features: int = 64) -> None:
        super().__init__()
        channels, *size = image_shape
        if min(size) < 8:
            raise ValueError(f"image_shape {tuple(image_shape)} is too small; height and width must be at least 8")
        check_count("num_classes", num_classes, at_least=2)
        self.image_shape = tuple(image_shape)
        self.num_features = num_features
        stages = [_convolution(channels, width)]
        features = width
        for stage in range(_num_stages(min(size))):
            wider = min(2 + stage, 3) * width
            stages += [_convolution(features, wider, stride=2), _convolution(wider, wider)]
            features = wider
        self.stages = nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.to_features = nn.Sequential(nn.Linear(features, num_features), nn.BatchNorm1d(num_features, affine=False))
        self.head = nn.Linear(num_features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """Standardised features (B, D) of images (B, C, H, W) in [-1, 1]."""
        return self.to_features(self.stages(x))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [-1, 1]."""
        return self.head(self.features(x))


def _num_stages(size: int) -> int:
    """Halvings until about 8 pixels are left; at most three, which keeps the network small for large images."""
    return min(max((size // 6).bit_length() - 1, 1), 3)


def _convolution(channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
