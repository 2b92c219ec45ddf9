"""What can be done with a denoiser: sampling, editing and likelihoods."""

import torch
from torch import Tensor

from lit_generative.core import GenerativeModule
from lit_generative.diffusion.editing import inpaint, remake
from lit_generative.diffusion.flow_likelihood import FlowLikelihood
from lit_generative.diffusion.likelihood import Bound
from lit_generative.diffusion.limits import Clip
from lit_generative.diffusion.runs import Denoise, Predict
from lit_generative.diffusion.samplers import Sampler
from lit_generative.diffusion.schedules import Schedule
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

    def remake(
        self, image: Tensor, start: float, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return images like ``image`` (B, C, H, W): noised to the time ``start`` in (0, 1], then sampled (SDEdit)."""
        y = check_labels(self, len(image), y)
        with inference(self, generator):
            image = image.to(self.device)
            return remake(self.sampler, self.denoiser(y), image, self.schedule, start=start).clamp(-1, 1)

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int = 100, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return two estimates of -log P of 8-bit images ``x`` (B, C, H, W) in [-1, 1], (B,), in nats.

        ``bound`` is a sample of the variational bound's terms (:class:`~lit_generative.diffusion.likelihood.Bound`),
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
        bound = Bound(self.num_steps, min(max(evaluations, 2), self.num_steps), Clip(), v=1.0)
        flow = FlowLikelihood(max(evaluations // 2, 1))
        return {
            "bound": bound.terms(denoise, x, self.schedule, generator=generator).total,
            "flow": -flow.log_prob(denoise, x, self.schedule, generator=generator),
        }

    def _noise(self, n: int) -> Tensor:
        return torch.randn(n, *self.image_shape, device=self.device) * self.sampler.levels(self.schedule)[0].sigma
