"""From images back to the noise that a deterministic sampler makes them from."""

from itertools import pairwise
from typing import NoReturn

import torch
from torch import Tensor

from lit_generative.diffusion.runs import Denoise, Level, Predict, Run
from lit_generative.diffusion.samplers import Sampler
from lit_generative.diffusion.schedules import Schedule

__all__ = ["encode"]


@torch.no_grad()
def encode(sampler: Sampler, denoise: Denoise | Predict, image: Tensor, schedule: Schedule) -> Tensor:
    """Return x_T (B, ...), from which ``sampler`` makes ``image`` (B, ...): the ODE run backwards.

    The ODE is d(x / alpha) = eps d(sigma / alpha) (Song et al. 2021, "Denoising diffusion implicit models", eq. 14 and
    section 5.3), and each step is the sampler's own between the same two levels, taken upwards. The last step down,
    to the clean image, returns the estimate of x_0 and tells nothing of the noise; so the way up begins at the lowest
    level l with the x_l, near alpha_l x_0, of which the estimate is nearest to ``image``, found to first order.

    Args:
        sampler: A deterministic one: :class:`~lit_generative.diffusion.samplers.DDIM` with eta = 0, or for less error
            at the same cost :class:`~lit_generative.diffusion.solvers.HeunSampler`.
        denoise: The estimate of x_0.
        image: What is encoded, (B, ...) in [-1, 1].
        schedule: The one that the denoiser was trained with.

    Raises:
        ValueError: If ``sampler`` draws noise or goes up as well as down.
    """
    *descending, _clean = sampler.levels(schedule)
    if not all(s.is_below(t) for t, s in pairwise(descending)):
        raise ValueError(f"spacing={type(sampler.spacing).__name__}: it puts noise back; encode with a plain one")
    _check_deterministic(sampler)
    levels, run = descending[::-1], Run(denoise, sampler.limit, None)
    x = levels[0].alpha * image
    x = x + levels[0].alpha * (image - run.denoise(x, levels[0]))
    for s, t in pairwise(levels):
        x = sampler.step(x, s, t, run)
    return x


class _Noiseless(Run):
    """A run in which no noise can be drawn."""

    def noise(self, x: Tensor) -> NoReturn:
        raise ValueError


def _check_deterministic(sampler: Sampler) -> None:
    """Let ``sampler`` take one step down on a point, to see whether it asks for noise."""
    noisy, low = Level(0.5, 0.8, 0.6), Level(0.25, 0.96, 0.28)
    try:
        sampler.step(torch.zeros(1, 1, 1, 1), noisy, low, _Noiseless(lambda x_t, t: (x_t, x_t), None, None))
    except ValueError:
        name = type(sampler).__name__
        raise ValueError(
            f"sampler={name}: it draws noise, so it has no way back; take DDIM() or HeunSampler()"
        ) from None
