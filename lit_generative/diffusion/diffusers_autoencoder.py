"""diffusers' ``AutoencoderKL`` as an autoencoder of ours; diffusers is needed to build it, and to nothing else."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributions import Independent

from lit_generative.checks import check_count
from lit_generative.description import Described
from lit_generative.nn.heads import diagonal_normal
from lit_generative.nn.sizes import ImageShape

__all__ = ["DiffusersAutoencoder"]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


class DiffusersAutoencoder(Described, nn.Module):
    """An ``AutoencoderKL`` (Rombach et al. 2022), whose latents a diffusion model can be trained on.

    It is a fixed map: there is no likelihood, and labels make no difference.

    Args:
        config: What its ``config.json`` says.
        image_size: Of square images. None: the config's ``sample_size``.

    Attributes:
        image_shape: (C, H, W).
        latent_shape: (c, h, w).

    Raises:
        ImportError: If diffusers is not installed.
        ValueError: If the config is of another class, or the size does not halve as often as the networks do.
    """

    network: Any
    condition = None
    num_classes = None

    def __init__(self, config: dict[str, Any], image_size: int | None = None) -> None:
        super().__init__()
        check_count("image_size", image_size)
        if (kind := config.get("_class_name", "AutoencoderKL")) != "AutoencoderKL":
            raise ValueError(f"{CONFIG} is of a {kind}: give the folder of an AutoencoderKL")
        try:
            import diffusers
        except ImportError as error:
            raise ImportError("an AutoencoderKL is built by diffusers: pip install diffusers") from error
        options = {name: value for name, value in config.items() if not name.startswith("_")}
        self.network = diffusers.AutoencoderKL(**options)
        made = self.network.config
        size = image_size or int(made["sample_size"])
        factor = 2 ** (len(made["block_out_channels"]) - 1)
        if size % factor:
            raise ValueError(
                f"image_size={size}: the networks halve it {factor.bit_length() - 1} times; give a multiple"
            )
        self.image_shape: ImageShape = (made["in_channels"], size, size)
        self.latent_shape: ImageShape = (made["latent_channels"], size // factor, size // factor)

    @classmethod
    def from_folder(cls, folder: str | Path, image_size: int | None = None) -> "DiffusersAutoencoder":
        """Build one from a folder that diffusers' ``save_pretrained`` has written.

        Raises:
            FileNotFoundError: If the folder lacks the configuration, or weights as safetensors; others, which could
                hold code, are not read.
            ValueError: If the two do not go together.
        """
        folder = Path(folder)
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"autoencoder {folder}: it has no {name}; diffusers' save_pretrained writes it")
        try:
            model = cls(json.loads((folder / CONFIG).read_text()), image_size)
            model.network.load_state_dict(load_file(folder / WEIGHTS))
        except (json.JSONDecodeError, RuntimeError, TypeError) as error:
            raise ValueError(f"autoencoder {folder}: configuration and weights do not go together: {error}") from None
        return model.eval()

    def latent_posterior(self, x: Tensor, y: Tensor | None = None) -> Independent:
        """Return q(z|x), a diagonal normal over (B, c h w), for images (B, C, H, W) in [-1, 1]."""
        q = self.network.encode(x).latent_dist
        return diagonal_normal(q.mean.flatten(1), q.logvar.flatten(1) / 2)

    def from_latents(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) of latents (B, c, h, w)."""
        return self.network.decode(z).sample

    def reconstruction_nll(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> None:
        """Return None: it was not trained on a likelihood."""

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the images of the means of latents, (B, C, H, W) in [-1, 1]."""
        z = self.latent_posterior(x).mean
        return self.from_latents(z.unflatten(1, self.latent_shape)).clamp(-1, 1)
