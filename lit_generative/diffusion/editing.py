"""Editing with an unconditional model: images from images, by a sampler's own loop."""

from collections import deque

import torch
from torch import Tensor

from lit_generative.diffusion.runs import Denoise, Level, Predict, Run, mix
from lit_generative.diffusion.samplers import Sampler
from lit_generative.diffusion.schedules import Schedule

__all__ = ["inpaint", "sdedit"]


def sdedit(
    sampler: Sampler,
    denoise: Denoise | Predict,
    image: Tensor,
    schedule: Schedule,
    *,
    start: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return images like ``image`` (B, ...): noised to the time ``start``, then sampled (SDEdit, Meng et al. 2022).

    Args:
        sampler: Takes all its steps between ``start`` and 0.
        denoise: The estimate of x_0.
        image: What to begin with, (B, ...) in [-1, 1]; a sketch will do.
        schedule: The one that the denoiser was trained with.
        start: In (0, 1]. The nearer to 1, the more realistic the result and the less like ``image``.
        generator: The source of all noise.

    Raises:
        ValueError: If ``start`` is outside (0, 1].
    """
    if not 0 < start <= 1:
        raise ValueError(f"start={start}: the time to begin at must be in (0, 1], for instance 0.5")
    x_t = _noised(image, sampler.levels(schedule, start)[0], Run(denoise, None, generator))
    return deque(sampler.trajectory(denoise, x_t, schedule, generator=generator, start=start), maxlen=1).pop()


def inpaint(
    sampler: Sampler,
    denoise: Denoise | Predict,
    image: Tensor,
    known: Tensor,
    schedule: Schedule,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Return ``image`` (B, ...) with all that is not ``known`` made up (RePaint, Lugmayr et al. 2022, eq. 8).

    After each step the known part is replaced by the image's own, noised to the same level. A sampler whose spacing is
    :class:`~lit_generative.diffusion.spacings.ResampledSpacing` makes the two parts agree better.

    Args:
        sampler: An ancestral one in the paper.
        denoise: The estimate of x_0.
        image: (B, ...) in [-1, 1]; what is not known does not matter, but must be finite.
        known: Boolean, true where the image is to be kept; broadcast against ``image``.
        schedule: The one that the denoiser was trained with.
        generator: The source of all noise.
    """

    def keep(x: Tensor, level: Level, run: Run) -> Tensor:
        return torch.where(known, _noised(image, level, run), x)

    first = sampler.levels(schedule)[0]
    x_T = _noised(torch.zeros_like(image), first, Run(denoise, None, generator))
    return deque(sampler.trajectory(denoise, x_T, schedule, generator=generator, adjust=keep), maxlen=1).pop()


def _noised(image: Tensor, level: Level, run: Run) -> Tensor:
    """Draw x_t given x_0 = ``image``; at the clean level that is the image itself."""
    return mix(level.alpha, image, level.sigma, run.noise(image)) if level.sigma else image
