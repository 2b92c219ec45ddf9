"""What can be done with a denoiser: sampling, editing, encoding and likelihoods."""

import torch
from torch import Tensor

from lit_generative.core import GenerativeModule
from lit_generative.diffusion.editing import inpaint, sdedit
from lit_generative.diffusion.flow_likelihood import FlowLikelihood
from lit_generative.diffusion.inversion import encode
from lit_generative.diffusion.likelihood import VariationalBound
from lit_generative.diffusion.runs import Denoise, Predict
from lit_generative.diffusion.samplers import Sampler
from lit_generative.diffusion.schedules import Schedule
from lit_generative.diffusion.solvers import HeunSampler
from lit_generative.diffusion.thresholding import StaticThresholding
from lit_generative.interpolation import spherical
from lit_generative.sampling import check_labels, inference, sampling_mode

__all__ = ["DenoisingModel"]


class DenoisingModel(GenerativeModule):
    """A generative model that is a denoiser; a subclass has the attributes below and implements :meth:`denoiser`.

    Attributes:
        image_shape: (C, H, W).
        schedule: alpha_t and sigma_t.
        sampler: How images are made; may be exchanged at any time.
        num_steps: T of the variational bound.
    """

    image_shape: tuple[int, ...]
    schedule: Schedule
    sampler: Sampler
    num_steps: int = 1000

    def denoiser(self, y: Tensor | None = None, *, is_guided: bool = True) -> Denoise | Predict:
        """Return what a sampler asks: the estimate of x_0 from x_t (B, C, H, W) and t (B,).

        Args:
            y: Labels (B,) of a conditional model.
            is_guided: Whether to guide it, if the model is to be guided.
        """
        raise TypeError(f"{type(self).__name__} does not implement denoiser(y, *, is_guided)")

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Return new images (n, C, H, W) in [-1, 1], made from noise by the sampler.

        Args:
            n: How many.
            y: Labels (n,) of a conditional model.
            generator: The source of all randomness; None: torch's global one.
        """
        return self.sampler.sample(self.denoiser(y), self._noise(n), self.schedule)

    def trajectory(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> list[Tensor]:
        """Return x_t (n, C, H, W) from pure noise to the images that :meth:`sample` returns, after every step."""
        y = check_labels(self, n, y)
        with inference(self, generator):
            return list(self.sampler.trajectory(self.denoiser(y), self._noise(n), self.schedule))

    def inpaint(
        self, image: Tensor, known: Tensor, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return ``image`` (B, C, H, W) in [-1, 1] with all that is not ``known`` made up.

        Args:
            image: What is not known in it does not matter, but must be finite.
            known: Boolean, true where the image is to be kept; broadcast against ``image``.
            y: Labels (B,) of a conditional model.
            generator: The source of all randomness; None: torch's global one.
        """
        y = check_labels(self, len(image), y)
        with inference(self, generator):
            image, known = image.to(self.device), known.to(self.device)
            return inpaint(self.sampler, self.denoiser(y), image, known, self.schedule).clamp(-1, 1)

    def sdedit(
        self, image: Tensor, start: float, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return images like ``image`` (B, C, H, W): noised to the time ``start`` in (0, 1], then sampled (SDEdit)."""
        y = check_labels(self, len(image), y)
        with inference(self, generator):
            image = image.to(self.device)
            return sdedit(self.sampler, self.denoiser(y), image, self.schedule, start=start).clamp(-1, 1)

    def encode(self, x: Tensor, y: Tensor | None = None, *, sampler: Sampler | None = None) -> Tensor:
        """Return the noise x_T (B, C, H, W) that :meth:`decode` makes images ``x`` from, without guidance.

        As the map is an ODE's (:func:`~lit_generative.diffusion.inversion.encode`) there is exactly one; the error is
        that of the steps. Encoded images differ from fresh noise, in length for instance, as far as the model is
        imperfect or the images are unlike its training images.

        Args:
            x: Images (B, C, H, W) in [-1, 1].
            y: Labels (B,) of a conditional model.
            sampler: A deterministic one. None: 25 steps of Heun's method, with the limit of the model's own sampler.
        """
        y = check_labels(self, len(x), y)
        with inference(self):
            denoise = self.denoiser(y, is_guided=False)
            return encode(sampler or self._ode(), denoise, x.to(self.device), self.schedule)

    def decode(
        self, x_T: Tensor, y: Tensor | None = None, *, sampler: Sampler | None = None, is_guided: bool = False
    ) -> Tensor:
        """Return images (B, C, H, W) in [-1, 1] made from ``x_T`` (B, C, H, W); arguments as in :meth:`encode`.

        ``is_guided`` guides it, if the model is to be guided: better images, but not those that were encoded.
        """
        y = check_labels(self, len(x_T), y)
        with inference(self):
            denoise = self.denoiser(y, is_guided=is_guided)
            images = (sampler or self._ode()).sample(denoise, x_T.to(self.device), self.schedule)
            return images.float().clamp(-1, 1)

    def interpolate(
        self, x_0: Tensor, x_1: Tensor, steps: int = 8, y: Tensor | None = None, *, sampler: Sampler | None = None
    ) -> Tensor:
        """Return what is between images, (steps, B, C, H, W): along great arcs between their latents x_T.

        The first and the last are ``x_0`` and ``x_1`` (B, C, H, W) but for the error of :meth:`encode`, of which the
        other arguments are.
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
        """Return images along great arcs between pairs of fresh noises (Song et al. 2021, section 5.3), guided.

        Args:
            n: How many paths.
            steps: Images of each, ends included.
            y: Labels (n,) of a conditional model, one for all of a path.
            sampler: A deterministic one. None: as in :meth:`encode`.
            generator: The source of all randomness; None: torch's global one.

        Returns:
            (steps, n, C, H, W) in [-1, 1].
        """
        y = check_labels(self, n, y)
        sampler = sampler or self._ode()
        with inference(self, generator):
            sigma = sampler.levels(self.schedule)[0].sigma
            z_0, z_1 = sigma * torch.randn(2, n, *self.image_shape, device=self.device)
        path = spherical(z_0, z_1, steps)
        return torch.stack([self.decode(z, y, sampler=sampler, is_guided=True) for z in path])

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int = 100, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return two estimates of -log P of 8-bit images ``x`` (B, C, H, W) in [-1, 1], (B,), in nats.

        ``bound`` is a sample of the terms of a :class:`~lit_generative.diffusion.likelihood.VariationalBound`,
        ``flow`` that of the sampler as an ODE (:class:`~lit_generative.diffusion.flow_likelihood.FlowLikelihood`).
        Neither is guided. Points of the plane have no levels, and so none of the two.

        Args:
            x: The images.
            y: Labels (B,) of a conditional model.
            evaluations: About how often the network is evaluated for an image, for each of the two.
            generator: The source of all randomness; None: torch's global one.
        """
        if self.image_shape[1:] == (1, 1):
            return {}
        denoise = self.denoiser(y, is_guided=False)
        bound = VariationalBound(self.num_steps, min(max(evaluations, 2), self.num_steps), StaticThresholding(), v=1.0)
        flow = FlowLikelihood(max(evaluations // 2, 1))
        return {
            "bound": bound.terms(denoise, x, self.schedule, generator=generator).total,
            "flow": -flow.log_prob(denoise, x, self.schedule, generator=generator),
        }

    def _noise(self, n: int) -> Tensor:
        return torch.randn(n, *self.image_shape, device=self.device) * self.sampler.levels(self.schedule)[0].sigma

    def _ode(self) -> Sampler:
        return HeunSampler(25, limit=self.sampler.limit)
