"""What callbacks, evaluation and comparison need of data and of models: protocols, met by having what they name.

Images are float tensors (B, C, H, W) in [-1, 1], labels int64 (B,). A batch is a dict with ``image`` and, if there are
labels, ``label``.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution

Batch = dict[str, Tensor]
Split = Literal["train", "val", "test"]


# -------------------------------------------------------------------- of data


def as_batch(given: Any) -> Batch:
    """Return what a loader gives as a batch: a dict with ``image``, a pair of images and labels, or images alone.

    Raises:
        ValueError: If it is none of these.
    """
    if isinstance(given, list | tuple):
        given = dict(zip(("image", "label"), given, strict=False))
    named = given if isinstance(given, Mapping) else {"image": given}
    batch = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if "image" not in batch:
        found = {name: type(value).__name__ for name, value in named.items()}
        raise ValueError(f'a batch is {found}: give a dict with the tensors "image" and "label", or (image, label)')
    return batch


@runtime_checkable
class DeclaresShape(Protocol):
    """Data that say how large their images are."""

    image_shape: tuple[int, int, int]
    """Channels, height and width of every image."""


@runtime_checkable
class DeclaresClasses(Protocol):
    """Data that say how many classes they have."""

    num_classes: int | None
    """None: there are no labels."""


@runtime_checkable
class NamesClasses(Protocol):
    """Data that say what their classes are called."""

    class_names: list[str] | None
    """In the order of the labels."""


@runtime_checkable
class ImageData(Protocol):
    """Images in three splits, with an identity.

    :class:`~lit_generative.data.ImageDataModule` has all of it; of any other data module
    :func:`~lit_generative.data.image_data` makes one.
    """

    @property
    def name(self) -> str:
        """A short name for reports."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""

    @property
    def num_classes(self) -> int | None:
        """The number of classes; None: there are no labels."""

    @property
    def class_names(self) -> list[str] | None:
        """What the classes are called, in the order of the labels."""

    def num_images(self, split: Split) -> int | None:
        """The number of images in a split; None: not known."""

    def loader(self, split: Split, *, batch_size: int | None = None, limit: int | None = None) -> Iterable[Batch]:
        """The first ``limit`` images for evaluation, in a fixed order; of several processes each gets its share."""

    def fingerprint(self, split: Split, limit: int | None = None) -> str:
        """A digest of the images in :meth:`loader`, that changes when they do."""

    def protocol(self, split: Split) -> dict[str, Any]:
        """What should accompany a number measured on a split, as plain data."""


@runtime_checkable
class HasModes(Protocol):
    """Points of the plane, (B, 2, 1, 1), drawn from a mixture of Gaussians that is known."""

    scale: float
    """The standard deviation of each coordinate about a centre."""

    def centres(self) -> Any:
        """The means of the Gaussians, an array (K, 2), in the order of the labels."""


@runtime_checkable
class DeclaresBatchSize(Protocol):
    """Data that say how many images a training batch has, in each process."""

    batch_size: int


@runtime_checkable
class TellsItsPlan(Protocol):
    """Data that say what was found and what will be made of it, or a model, for the plan before a training."""

    def plan(self) -> dict[str, str]:
        """Return lines by what they are about: "found", "made" and "augmented"; what is not known is not there."""


# -------------------------------------------------------------------- of models


@runtime_checkable
class Reconstructs(Protocol):
    """A model that gives an image back from what it keeps of it."""

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return what is left of images ``x``, (B, C, H, W)."""


@runtime_checkable
class Interpolates(Protocol):
    """A model that goes from one image to another through its latents."""

    def interpolate(self, x_0: Tensor, x_1: Tensor, steps: int = 8, y: Tensor | None = None) -> Tensor:
        """Return images on the way, (steps, B, C, H, W), the ends included."""


@runtime_checkable
class InterpolatesSamples(Protocol):
    """A model that goes from one new image to another."""

    def interpolate_samples(
        self, n: int, steps: int = 8, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return images on ``n`` ways, (steps, n, C, H, W)."""


@runtime_checkable
class HasLatentSpace(Protocol):
    """A model whose latents are vectors of few numbers."""

    latent_dim: int

    def posterior_means(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of q(z|x), (B, latent_dim)."""

    def interpolate(
        self, x_0: Tensor, x_1: Tensor, steps: int = 8, y: Tensor | None = None, *, is_spherical: bool = False
    ) -> Tensor:
        """Return images on the way, (steps, B, C, H, W), along a line in latent space or a great arc."""

    def traverse(
        self, x: Tensor, y: Tensor | None = None, *, dimensions: Sequence[int] | None = None, steps: int = 8
    ) -> Tensor:
        """Return images (D, steps, C, H, W), row d with one latent dimension of the one image ``x`` moved."""

    def latent_grid(
        self, columns: int = 16, y: Tensor | None = None, *, dimensions: tuple[int, int] = (0, 1)
    ) -> Tensor:
        """Return the images of a plane of the latent space, (columns, columns, C, H, W)."""


@runtime_checkable
class Autoencodes(Protocol):
    """A model whose latents, a grid or a vector, another model can learn to draw."""

    latent_shape: tuple[int, int, int]
    """(c, h, w); (d, 1, 1) of a vector."""

    def latent_posterior(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        """Return q(z|x), batch shape (B,), event shape (c h w,), for images (B, C, H, W)."""

    def from_latents(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) of latents (B, c, h, w)."""

    def reconstruction_nll(self, x: Tensor, z: Tensor, y: Tensor | None = None) -> Tensor | None:
        """Return -log P(x|z) of 8-bit images at latents (B, c, h, w), (B,), in nats; None where it has no meaning."""


@runtime_checkable
class Inverts(Protocol):
    """A model that finds the noise that an image is made from."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return noise like ``x``, (B, C, H, W)."""

    def decode(self, x_T: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the images of noise ``x_T``, (B, C, H, W)."""


@runtime_checkable
class Edits(Protocol):
    """A model that completes images, and that remakes them from a noisy state."""

    def inpaint(
        self,
        image: Tensor,
        known: Tensor,
        y: Tensor | None = None,
        *,
        passes: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return ``image`` (B, C, H, W) with all that is not ``known``, boolean, made up."""

    def sdedit(
        self, image: Tensor, start: float, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return images like ``image`` (B, C, H, W): noised to the time ``start`` in (0, 1], then sampled."""


@runtime_checkable
class Trajectories(Protocol):
    """A model that makes images in steps, which can be shown."""

    def trajectory(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return x_t (n, C, H, W) from pure noise to the images that ``sample`` returns, after every step."""


@runtime_checkable
class MeasuresNoiseLevels(Protocol):
    """A model that is trained at many noise levels."""

    def loss_by_noise(self, x: Tensor, y: Tensor | None = None, num_levels: int = 20) -> dict[str, Tensor]:
        """Return ``log_snr`` and ``noise_mse``, both (num_levels,), on images ``x``, always with the same noise."""


@runtime_checkable
class HasLearnedBuffers(Protocol):
    """A module some of whose buffers are learned, though not by gradients, and go with the weights of others."""

    learned_buffers: tuple[str, ...]
    """Their names."""


@runtime_checkable
class BeginsAnew(Protocol):
    """A module that keeps in its state what a run has come to, which a run from the same weights begins without."""

    def begin_anew(self, model: Any) -> None:
        """Forget it; ``model`` is the whole model, which has its first weights."""


class HasBoundary(Protocol):
    """A loss of a discriminator."""

    boundary: float | None
    """The logit at which the discriminator is undecided; None: only differences of logits mean something."""


@runtime_checkable
class Diagnosable(Protocol):
    """A game of a generator against a discriminator that says how it stands."""

    loss: HasBoundary

    def diagnose(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return ``real_logits``, ``fake_logits`` and ``generator_gradient``, each (B,), and leave no trace."""


@runtime_checkable
class SamplesInSteps(Protocol):
    """A model whose sampler can take fewer steps."""

    network_evaluations: int

    def at_most(self, evaluations: int | None) -> AbstractContextManager[None]:
        """Let it take at most so many network evaluations a sample in the context; None: as many as it takes."""
