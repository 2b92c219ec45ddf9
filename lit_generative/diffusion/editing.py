"""Images from images, by a sampler's own loop: remade, completed, and traced back to the noise that makes them."""

from itertools import pairwise

import torch
from torch import Tensor

from lit_generative.checks import check_range
from lit_generative.diffusion.denoiser import Denoiser
from lit_generative.diffusion.samplers import Sampler, draw_like, mix
from lit_generative.diffusion.schedules import NoiseLevel, Schedule
from lit_generative.diffusion.spacings import check_descends

__all__ = ["encode", "inpaint", "sdedit"]


def sdedit(
    sampler: Sampler,
    denoise: Denoiser,
    image: Tensor,
    schedule: Schedule,
    *,
    start: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return images like ``image`` (B, ...): noised to the time ``start``, then sampled (SDEdit, Meng et al. 2022).

    Args:
        sampler: It takes all its steps between ``start`` and 0.
        denoise, schedule, generator: See :meth:`Sampler.trajectory`.
        image: What to begin with, (B, ...) in [-1, 1]; a sketch will do.
        start: In (0, 1]. The nearer to 1, the more realistic the result and the less like ``image``.
    """
    check_range("start", start, above=0, at_most=1, hint="it is the time to begin at, such as 0.5")
    x_t = _noised(image, sampler.levels(schedule, start)[0], generator)
    return sampler.sample(denoise, x_t, schedule, generator=generator, start=start)


def inpaint(
    sampler: Sampler,
    denoise: Denoiser,
    image: Tensor,
    known: Tensor,
    schedule: Schedule,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``image`` (B, ...) with all that is not ``known`` made up (RePaint, Lugmayr et al. 2022, eq. 8).

    After each step the known part is replaced by the image's own, noised to the same level. A sampler whose spacing is
    :class:`~lit_generative.diffusion.spacings.ResampledSpacing` makes the two parts agree better; the paper's is
    ancestral.

    Args:
        sampler: How the unknown part is made.
        denoise, schedule, generator: See :meth:`Sampler.trajectory`.
        image: (B, ...) in [-1, 1]; what is not known does not matter, but must be finite.
        known: Boolean, true where the image is to be kept; broadcast against ``image``.

    Raises:
        ValueError: If ``known`` cannot be broadcast.
    """
    sizes = zip(known.shape[::-1], image.shape[::-1], strict=False)
    if known.ndim > image.ndim or any(size not in (1, wanted) for size, wanted in sizes):
        raise ValueError(f"known has shape {tuple(known.shape)}: it must be that of image, {tuple(image.shape)}")

    def keep(x: Tensor, level: NoiseLevel) -> Tensor:
        return torch.where(known, _noised(image, level, generator), x)

    x_T = _noised(torch.zeros_like(image), sampler.levels(schedule)[0], generator)
    return sampler.sample(denoise, x_T, schedule, generator=generator, adjust=keep)


@torch.no_grad()
def encode(sampler: Sampler, denoise: Denoiser, image: Tensor, schedule: Schedule) -> Tensor:
    """Return x_T (B, ...), from which ``sampler`` makes ``image`` (B, ...): the ODE run backwards.

    The ODE is d(x / alpha) = eps d(sigma / alpha) (Song et al. 2021, "Denoising diffusion implicit models", eq. 14 and
    section 5.3), and each step is the sampler's own between the same two levels, taken upwards. The last step down,
    to the clean image, returns the estimate of x_0 and tells nothing of the noise. So the way up begins at the lowest
    level l with the x_l, near alpha_l x_0, of which the estimate is nearest to ``image``, found to first order.

    Args:
        sampler: A deterministic one: DDIM with eta = 0, or for less error at the same cost HeunSampler.
        denoise, schedule: See :meth:`Sampler.trajectory`.
        image: What is encoded, (B, ...) in [-1, 1].

    Raises:
        ValueError: If ``sampler`` draws noise or goes up as well as down.
    """
    check_descends(sampler.spacing)
    if not sampler.is_deterministic:
        name = type(sampler).__name__
        raise ValueError(f"sampler={name}: it draws noise, so it has no way back; take DDIM() or HeunSampler()")
    *descending, _clean = sampler.levels(schedule)
    levels, state = descending[::-1], sampler.begin(denoise)
    x = levels[0].alpha * image
    x = x + levels[0].alpha * (image - state.denoise(x, levels[0]).x0)
    for s, t in pairwise(levels):
        x = sampler.step(x, s, t, state)
    return x


def _noised(image: Tensor, level: NoiseLevel, generator: torch.Generator | None) -> Tensor:
    """Draw x_t given x_0 = ``image``; at the clean level that is the image itself."""
    return mix(level.alpha, image, level.sigma, draw_like(image, generator)) if level.sigma else image
