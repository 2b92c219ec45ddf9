"""Images from images: what a diffusion model does with pictures that are given, by its own sampler."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lit_generative.core import GenerativeModule
from lit_generative.diffusion.couplings import Coupling
from lit_generative.diffusion.denoiser import Denoiser
from lit_generative.diffusion.editing import encode, inpaint, sdedit
from lit_generative.diffusion.latents import Latents
from lit_generative.diffusion.samplers import HeunSampler, Sampler
from lit_generative.diffusion.schedules import Schedule
from lit_generative.diffusion.spacings import KarrasSpacing
from lit_generative.interpolation import spherical
from lit_generative.nn.image_conditions import MaskedCondition
from lit_generative.sampling import check_images, check_labels, inference

__all__ = ["EditsImages"]


class EditsImages(GenerativeModule, ABC):
    """The part of :class:`~lit_generative.diffusion.DDPM` that completes images, remakes them and finds their noise.

    What is noised are states: images themselves or, of a model with ``latents``, those of images.
    """

    image_shape: tuple[int, int, int]
    sampler: Sampler
    schedule: Schedule
    coupling: Coupling | None
    latents: Latents | None

    @abstractmethod
    def denoiser(self, y: Tensor | None = None, *, is_guided: bool = True) -> Denoiser:
        """Return what a sampler asks, for labels ``y`` (B,), guided if the model is."""

    @property
    def state_shape(self) -> tuple[int, int, int]:
        """The shape of what is noised: that of images or of latents."""
        return self.image_shape if self.latents is None else self.latents.shape

    def states_of(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return what is noised of images ``x`` (B, C, H, W): themselves, or the means of their latents."""
        return x if self.latents is None else self.latents.means(x, y)

    def images_of(self, states: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the images (B, C, H, W) in [-1, 1] of states."""
        return states.float().clamp(-1, 1) if self.latents is None else self.latents.images(states, y)

    def trajectory(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return x_t (n, C, H, W) from pure noise to the images that :meth:`sample` returns, after every step.

        Of latents, each is decoded.
        """
        with self._drawing(n, y, generator) as denoise:
            states = self.sampler.trajectory(denoise, self._noise(n, self.sampler), self.schedule)
            return list(states) if self.latents is None else [self.images_of(state, y) for state in states]

    def inpaint(
        self,
        image: Tensor,
        known: Tensor,
        y: Tensor | None = None,
        *,
        passes: int = 1,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return ``image`` (B, C, H, W) in [-1, 1] with all that is not ``known`` made up.

        ``known`` is boolean and broadcast against ``image``; what is not known may be any finite number. More
        ``passes`` make the two agree better (:meth:`~lit_generative.diffusion.samplers.Sampler.resampled`); a model
        with a coupling has one.
        """
        check_images(self, image=image)
        if y is None and isinstance(self.condition, MaskedCondition):
            y = self.condition.given(image, known.expand(image.shape)[:, :1])
        with self._drawing(len(image), y, generator) as denoise:
            image, known = image.to(self.device), known.to(self.device)
            sampler = self.sampler.resampled(passes) if self.coupling is None else self.sampler
            if self.latents is None:
                return inpaint(sampler, denoise, image, known, self.schedule).clamp(-1, 1)
            places = self.latents.known(known.expand(image.shape)[:, :1])
            made = inpaint(sampler, denoise, self.states_of(image, y), places, self.schedule)
            return torch.where(known, image, self.images_of(made, y))

    def sdedit(
        self, image: Tensor, start: float, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return images like ``image`` (B, C, H, W): noised to the time ``start`` in (0, 1], then sampled (SDEdit)."""
        check_images(self, image=image)
        with self._drawing(len(image), y, generator) as denoise:
            states = self.states_of(image.to(self.device), y)
            return self.images_of(sdedit(self.sampler, denoise, states, self.schedule, start=start), y)

    def encode(self, x: Tensor, y: Tensor | None = None, *, sampler: Sampler | None = None) -> Tensor:
        """Return the noise x_T (B, C, H, W) that :meth:`decode` makes images ``x`` from, without guidance.

        As the map is an ODE's (:func:`~lit_generative.diffusion.editing.encode`) there is exactly one; the error is
        that of the steps. Encoded images differ from fresh noise, in length for instance, as far as the model is
        imperfect or the images are unlike its training images. ``sampler`` is a deterministic one, by default 25 steps
        of Heun's method.
        """
        check_images(self, x=x)
        with self._drawing(len(x), y, is_guided=False) as denoise:
            return encode(sampler or self._ode(), denoise, self.states_of(x.to(self.device), y), self.schedule)

    def decode(
        self, x_T: Tensor, y: Tensor | None = None, *, sampler: Sampler | None = None, is_guided: bool = False
    ) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1] made from ``x_T``, by a sampler as in :meth:`encode`.

        Guided, if the model is to be guided, they are better ones, but not those that were encoded.
        """
        if tuple(x_T.shape[1:]) != self.state_shape:
            raise ValueError(
                f"x_T has shape {tuple(x_T.shape)}: noise of this model is (B, {str(self.state_shape)[1:]}"
            )
        with self._drawing(len(x_T), y, is_guided=is_guided) as denoise:
            return self.images_of((sampler or self._ode()).sample(denoise, x_T.to(self.device), self.schedule), y)

    def interpolate(
        self, x_0: Tensor, x_1: Tensor, steps: int = 8, y: Tensor | None = None, *, sampler: Sampler | None = None
    ) -> Tensor:
        """Return what is between images, (steps, B, C, H, W): along great arcs between their latents x_T.

        The first and the last are ``x_0`` and ``x_1`` (B, C, H, W) but for the error of :meth:`encode`.
        """
        z_0, z_1 = (self.encode(x, y, sampler=sampler) for x in (x_0, x_1))
        return torch.stack([self.decode(z, y, sampler=sampler) for z in spherical(z_0, z_1, steps)])

    def interpolate_samples(
        self,
        n: int,
        steps: int = 8,
        y: Tensor | None = None,
        *,
        sampler: Sampler | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return images on great arcs between fresh noises, (steps, n, C, H, W) (Song et al. 2021, section 5.3).

        They are guided, if the model is, and each path is of one class. ``sampler`` is as in :meth:`encode`.
        """
        sampler = sampler or self._ode()
        with self._drawing(n, y, generator):
            z_0, z_1 = self._noise(2 * n, sampler).chunk(2)
        path = spherical(z_0, z_1, steps)
        return torch.stack([self.decode(z, y, sampler=sampler, is_guided=True) for z in path])

    def _ode(self) -> Sampler:
        return HeunSampler(25, KarrasSpacing(), self.sampler.thresholding)

    @contextmanager
    def _drawing(
        self, n: int, y: Tensor | None, generator: torch.Generator | None = None, *, is_guided: bool = True
    ) -> Iterator[Denoiser]:
        """Check the labels, and yield the denoiser where images are drawn."""
        y = check_labels(self, n, y)
        with inference(self, generator):
            yield self.denoiser(y, is_guided=is_guided)

    def _noise(self, n: int, sampler: Sampler) -> Tensor:
        return torch.randn(n, *self.state_shape, device=self.device) * sampler.levels(self.schedule)[0].sigma
