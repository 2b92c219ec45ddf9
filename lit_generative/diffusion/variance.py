"""Learned variance: the network says, for each pixel, how much noise a step down adds."""

import torch
from torch import Tensor

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.diffusion.likelihood import ChainStep
from lit_generative.diffusion.schedules import Schedule, step_at

__all__ = ["LearnedVariance"]


class LearnedVariance(Described):
    """The variance beta^v beta-tilde^(1 - v) of a step, v from the network (Nichol & Dhariwal 2021, section 3.1).

    The network puts out twice the channels. As the simple loss says nothing of the variance, the hybrid loss adds
    ``weight`` times the variational bound, from which no gradient reaches the mean (their eq. 16): T times the mean of
    :meth:`bound_term` over uniform times, in bits/dim where the simple loss is a mean over dimensions.

    Args:
        weight: lambda, positive.
        num_steps: T, the number of steps of the chain that the bound is of, at least 2.
    """

    def __init__(self, weight: float = 1e-3, num_steps: int = 1000) -> None:
        check_range("weight", weight, above=0, hint="nothing else teaches the variance; theirs is 0.001")
        check_count("num_steps", num_steps, at_least=2, hint="theirs is 4000")
        self.weight, self.num_steps = weight, num_steps

    def split(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prediction and v, (B, C, ...) each, from what the network puts out, (B, 2C, ...).

        v is (raw + 1) / 2 for the raw second half, and not clamped: as in the paper, nothing keeps it in [0, 1].

        Raises:
            ValueError: If the number of channels is odd.
        """
        if output.shape[1] % 2:
            raise ValueError(f"output with {output.shape[1]} channels: a learned variance needs twice the image's")
        prediction, raw = output.chunk(2, dim=1)
        return prediction, (raw.to(torch.promote_types(raw.dtype, torch.float32)) + 1) / 2

    def bound_term(self, x0: Tensor, x0_hat: Tensor, v: Tensor, t: Tensor, schedule: Schedule) -> Tensor:
        """Return the bound's term of the step that leads over ``t``, (B,), in nats summed over dimensions.

        That is the KL of the step from i / T to (i - 1) / T, or at i = 1 the decoder's -log p(x_0|x_1). Each is as
        likely as any other at uniform times.

        Args:
            x0: Images (B, ...), of 256 levels in [-1, 1].
            x0_hat: Their estimates (B, ...), to which no gradient flows.
            v: The fraction of the variance, (B, ...).
            t: Times (B,) in (0, 1].
            schedule: The schedule in use.
        """
        i = step_at(t, self.num_steps)
        x0_hat, step = x0_hat.detach(), ChainStep.at(i, schedule, self.num_steps).like(x0)
        is_first = (i == 1).to(x0.device)
        return step.decoder_nll(x0, x0_hat, v).where(is_first, step.divergence(x0, x0_hat, v))
