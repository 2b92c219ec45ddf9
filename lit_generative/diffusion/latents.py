"""The latents of a trained autoencoder in place of images (latent diffusion, Rombach et al. 2022)."""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F

from lit_generative.agreement import shape_of
from lit_generative.checks import check_count
from lit_generative.contracts import Autoencodes
from lit_generative.core import GenerativeModule
from lit_generative.description import Described, describe, unwrapped
from lit_generative.diffusion.diffusers_autoencoder import DiffusersAutoencoder
from lit_generative.nn.sizes import ImageShape
from lit_generative.numerics import at_least_single
from lit_generative.processes import gather

__all__ = ["Latents"]

LEAST_SCALE = 1e-6  # of a channel that is the same for all images
NONE_GIVEN = (
    "latents.autoencoder=None: give the checkpoint of an autoencoder, --model.latents.autoencoder CKPT, as of "
    "`lit-generative fit --config vae/autoencoder`"
)


class Latents(Described, nn.Module):
    """What a frozen autoencoder makes of images, with mean 0 and variance 1 in each channel, and back.

    Images are mapped to a draw from q(z|x), from which the moments of each channel over the training set are taken
    (Rombach et al. 2022, section D.1, take one variance). What the model of the latents draws is decoded to the mean
    of p(x|z). A checkpoint of the whole contains the autoencoder.

    Args:
        autoencoder: A trained :class:`~lit_generative.vae.VAE` or :class:`~lit_generative.vae.VQVAE`, or the path of
            its checkpoint, of that of a model of its latents, or of a folder of diffusers' ``AutoencoderKL``.
        cache: Posteriors of so many training images are kept in memory, and found again by the images' bytes; 0 encodes
            images each time, as those are that are augmented.
        num_images: The moments are those of so many training images, the first.
        image_size: Of a diffusers folder, whose networks take images of any size. None: its ``sample_size``.

    Attributes:
        shape: (c, h, w) of an image's latents.
        is_fitted: Whether mean and scale are known.
    """

    autoencoder: Any
    mean: Tensor
    scale: Tensor
    is_fitted: Tensor

    def __init__(
        self,
        autoencoder: GenerativeModule | DiffusersAutoencoder | str | Path | None = None,
        cache: int = 100_000,
        num_images: int = 5_000,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        check_count("cache", cache, at_least=0)
        check_count("num_images", num_images, at_least=2)
        self.autoencoder = _loaded(autoencoder, image_size).requires_grad_(False).eval()
        # a checkpoint holds it, not where it was
        self._init_args |= {"autoencoder": describe(self.autoencoder), "image_size": None}
        self.shape: ImageShape = self.autoencoder.latent_shape
        self.cache, self.num_images = cache, num_images
        channels = (self.shape[0], 1, 1)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        self.register_buffer("is_fitted", torch.zeros((), dtype=torch.bool))
        self._kept: dict[bytes, Tensor] = {}  # means and standard deviations, (2, c h w)

    def train(self, mode: bool = True) -> "Latents":
        """Stay in evaluation mode: the autoencoder is not trained."""
        return super().train(False)

    # ---------------------------------------------------------------- images to latents, and back

    @torch.no_grad()
    def draw(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return latents (B, c, h, w), drawn from q(z|x, y), of images (B, C, H, W) in [-1, 1].

        Args:
            x: The images.
            y: Labels (B,) of a conditional autoencoder.
        """
        keys = _digests(x, self._labels(y)) if self._kept else []
        if keys and all(key in self._kept for key in keys):
            mean, std = torch.stack([self._kept[key] for key in keys]).to(x.device).unbind(1)
            return self.standardised(mean + std * torch.randn_like(mean))
        return self.standardised(self.posterior(x, y).sample())

    def posterior(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x, y), batch shape (B,), event shape (c h w,), of latents as the autoencoder has them."""
        return self.autoencoder.latent_posterior(x, self._labels(y))

    def images(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) in [-1, 1], float32, of latents (B, c, h, w)."""
        z = z.to(torch.promote_types(z.dtype, self.mean.dtype))
        return self.autoencoder.from_latents(z * self.scale + self.mean, self._labels(y)).float().clamp(-1, 1)

    @torch.no_grad()
    def means(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means (B, c, h, w) of what :meth:`draw` draws."""
        return self.standardised(self.posterior(x, y).mean)

    def nll_beside_prior(self, x: Tensor, raw: Tensor, q: Distribution, y: Tensor | None = None) -> Tensor | None:
        """Return -log P(x|z) + log q(z|x) at one draw, (B,), in nats; None where the two have no meaning.

        With -log p(z) of the standardised latents it is the bound on -log P(x) (Vahdat et al. 2021, eq. 3); the scale's
        part of the change of variables is in it.

        Args:
            x: 8-bit images (B, C, H, W) in [-1, 1].
            raw: Latents (B, c h w), drawn from q.
            q: What :meth:`posterior` returns for ``x``.
            y: Labels (B,) of a conditional autoencoder.
        """
        nll = self.autoencoder.reconstruction_nll(x, raw.unflatten(1, self.shape), self._labels(y))
        places = math.prod(self.shape[1:])
        return None if nll is None else nll + q.log_prob(raw) + places * self.scale.log().sum()

    def known(self, mask: Tensor) -> Tensor:
        """Return which latents are known, (..., 1, h, w), where all pixels that they stand for are: ``mask`` is one."""
        height, width = self.shape[1:]
        return 1 - F.adaptive_max_pool2d(1 - mask.float(), (height, width)) > 0.5

    def standardised(self, z: Tensor) -> Tensor:
        """Return latents (B, c, h, w) of mean 0 and variance 1 for what the posterior draws, (B, c h w)."""
        return (at_least_single(z).unflatten(1, self.shape) - self.mean) / self.scale

    def _labels(self, y: Tensor | None) -> Tensor | None:
        return None if self.autoencoder.condition is None else y

    # ---------------------------------------------------------------- before the first step

    def check(self, model: Any) -> None:
        """Refuse a DDPM that does not go with the latents.

        Raises:
            ValueError: It names the argument.
        """
        own, network = shape_of(self.autoencoder), unwrapped(model.network)
        if own is not None and own != model.image_shape:
            raise ValueError(f"image_shape={model.image_shape}, but latents.autoencoder knows images of {own}")
        if model.sampler.thresholding is not None:
            name = type(model.sampler.thresholding).__name__
            raise ValueError(f"sampler.thresholding={name}: latents have no bounds; leave it out")
        if model.variance is not None:
            raise ValueError("variance: its bound is that of 8-bit images, not of latents; leave it out")
        if self.autoencoder.condition is not None and self.autoencoder.num_classes != model.num_classes:
            raise ValueError(
                f"num_classes={model.num_classes}, but latents.autoencoder is conditioned on "
                f"{self.autoencoder.num_classes} classes: make them equal, or take an unconditional autoencoder"
            )
        made_for = tuple(getattr(network, "_init_args", {}).get("image_shape", self.shape))
        if made_for != self.shape:
            raise ValueError(
                f"network.image_shape={made_for}: the latents have {self.shape}, which it has to be made for"
            )

    @torch.no_grad()
    def prepare(self, batches: Iterable[tuple[Tensor, Tensor | None]], *, keeps: bool = True) -> None:
        """Learn mean and scale of each channel, unless they are known, and keep posteriors.

        Several processes pool what they have for the moments; each keeps its own images.

        Args:
            batches: Training images (B, C, H, W) and labels (B,), where they are to be encoded.
            keeps: Whether the very same images will come in training.
        """
        drawn: list[Tensor] = []
        with torch.random.fork_rng():
            torch.manual_seed(0)
            for x, y in batches:
                q = self.posterior(x, y)
                if keeps:
                    self._keep(x, y, q)
                if not self.is_fitted and sum(map(len, drawn)) < self.num_images:
                    drawn.append(q.sample().float())
        if self.is_fitted:
            return
        z = gather(torch.cat(drawn)).unflatten(1, self.shape)
        self.mean.copy_(z.mean((0, 2, 3)).view_as(self.mean))
        self.scale.copy_(z.std((0, 2, 3)).clamp(min=LEAST_SCALE).view_as(self.scale))
        self.is_fitted.fill_(True)

    def _keep(self, x: Tensor, y: Tensor | None, q: Distribution) -> None:
        """Keep posteriors of independent normals, as long as there is room; others have no such moments."""
        if len(self._kept) + len(x) > self.cache or not (
            isinstance(q, Independent) and isinstance(q.base_dist, Normal)
        ):
            return
        moments = torch.stack([q.mean, q.stddev], 1).float().cpu()
        self._kept |= dict(zip(_digests(x, self._labels(y)), moments, strict=True))


def _loaded(autoencoder: Any, image_size: int | None) -> Any:
    """Return the autoencoder, from its checkpoint or folder if a path is given.

    Raises:
        ValueError: If there is none, or the model has no latents that images can be made of.
    """
    if autoencoder is None:
        raise ValueError(NONE_GIVEN)
    if isinstance(autoencoder, str | Path) and Path(autoencoder).is_dir():
        return DiffusersAutoencoder.from_folder(autoencoder, image_size)
    if image_size is not None:
        raise ValueError(f"latents.image_size={image_size} is that of a diffusers folder; a checkpoint says its own")
    if isinstance(autoencoder, str | Path):
        autoencoder = GenerativeModule.load_from_checkpoint(autoencoder, map_location="cpu")
        if isinstance(latents := getattr(autoencoder, "latents", None), Latents):
            return latents.autoencoder  # of a model of latents: the same autoencoder
    if not isinstance(autoencoder, Autoencodes):
        raise ValueError(
            f"latents.autoencoder is a {type(autoencoder).__name__}, which has no latents that images can be made of: "
            "give a VAE or a VQVAE"
        )
    return autoencoder


def _digests(x: Tensor, y: Tensor | None) -> list[bytes]:
    """Return what stands for each image and its label."""
    labels = [b""] * len(x) if y is None else [row.numpy().tobytes() for row in y.cpu()]
    rows = zip(x.float().cpu().contiguous(), labels, strict=True)
    return [hashlib.blake2b(row.numpy().tobytes() + label, digest_size=16).digest() for row, label in rows]
