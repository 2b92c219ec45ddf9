"""A folder of images as a model, so that the samples of any program can be measured like a model's."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from lit_generative.core import GenerativeModule
from lit_generative.data.decode import Decoder
from lit_generative.data.folders import list_images
from lit_generative.data.images import to_batch
from lit_generative.data.surveys import survey
from lit_generative.sampling import sampling_mode

__all__ = ["ImagesOf"]


class ImagesOf(GenerativeModule):
    """Offers given images as samples: a model that is not trained and has no parameters.

    Args:
        images: (N, C, H, W) in [-1, 1].
    """

    images: Tensor
    family = "images"
    sampler_name: ClassVar[str] = "given images"
    network_evaluations: int = 0

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.register_buffer("images", images, persistent=False)

    @classmethod
    def read(cls, folder: str | Path, image_shape: tuple[int, int, int]) -> "ImagesOf":
        """Read all images below a folder, of any kind that PIL reads; subfolders and other files do not matter.

        Args:
            folder: The folder.
            image_shape: Channels, height and width that the images are to have. Colours are changed if need be, sizes
                never: the sharpness measured would be that of the resizing.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If there are no images in it, one cannot be read, or one has another size.
        """
        channels, size = image_shape[0], image_shape[1:]
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"folder {folder}: there is no such folder")
        files = [str(file) for file in list_images(Path(folder))]
        if not files:
            raise ValueError(f"folder {folder} holds no images; give one with PNG or JPEG files, one for each image")
        rows: list[dict[str, Any]] = [{"path": file, "bytes": None} for file in files]
        seen = survey(zip(rows, files, strict=True), skip_unreadable=False)
        if others := seen.sizes - {size}:
            (height, width), wanted = min(others), f"{size[0]}x{size[1]}"
            raise ValueError(f"folder {folder} has images of {height}x{width} pixels, not {wanted}; resize them first")
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            pixels = np.stack(list(pool.map(Decoder(channels, size, resize=False, white=seen.white), rows, files)))
        return cls(to_batch(pixels, None)["image"])

    def __len__(self) -> int:
        return len(self.images)

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Return ``n`` of the images in random order, each at most once, (n, C, H, W).

        Two calls know nothing of each other: for samples without repetition, draw all of them in one.

        Raises:
            ValueError: If there are fewer images.
        """
        if n > len(self.images):
            raise ValueError(f"n={n}: there are only {len(self.images)} images; ask for fewer, or give more images")
        return self.images[torch.randperm(len(self.images), generator=generator, device=self.device)[:n]]
