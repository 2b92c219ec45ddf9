"""Which times to train at: each sampler returns times in (0, 1] and the importance of each.

The loss of an image is to be multiplied by its importance; where a sampler prefers some times for the sake of what is
learned, that is 1, and where it does so only to reduce the variance of the same loss's estimate, it makes up for it.
Random numbers come from torch's global generator.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.diffusion.schedules import Schedule
from lit_generative.numerics import FullPrecisionModule

__all__ = [
    "GridTimes",
    "LogNormalTimes",
    "LogitNormalTimes",
    "LossAwareTimes",
    "StratifiedTimes",
    "TimeSampler",
    "UniformTimes",
]

Device = torch.device | str | None


class TimeSampler(Described, FullPrecisionModule, ABC):
    """A distribution of times that may follow the training's course."""

    @abstractmethod
    def forward(self, n: int, device: Device = None) -> tuple[Tensor, Tensor]:
        """Draw times in (0, 1]; return them and the importance of each, both (n,) and float32, on ``device``."""

    def observe(self, t: Tensor, loss: Tensor) -> None:
        """Take note of a training step; by default nothing happens. To be called on every process, or on none.

        Args:
            t: The times, (B,).
            loss: The loss of each image, (B,), before it is multiplied by the importance.
        """


class UniformTimes(TimeSampler):
    """t ~ U(0, 1], independently."""

    def forward(self, n: int, device: Device = None) -> tuple[Tensor, Tensor]:
        """Draw from the unit interval."""
        return _with_ones(_uniform(n, device))


class StratifiedTimes(TimeSampler):
    """One uniform time in each of the batch's n strata (k / n, (k + 1) / n], in random order.

    Each time is still uniform, but a batch covers all noise levels evenly, so that its mean loss varies less (Kingma et
    al. 2021 do the same with a single random offset). The order is random so that an image's place in the
    batch says nothing about its time. Under several processes each has its own strata.
    """

    def forward(self, n: int, device: Device = None) -> tuple[Tensor, Tensor]:
        """Draw one time from each of ``n`` strata."""
        strata = torch.randperm(n, device=device)
        return _with_ones((strata + _uniform(n, device)) / n)


class LogitNormalTimes(TimeSampler):
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024 eq. 19), which prefers times in the middle.

    Args:
        mean: Where: below 0 towards the data, above 0 towards the noise.
        std: How widely; positive.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        check_range("mean", mean)
        check_range("std", std, above=0)
        self.mean, self.std = mean, std

    def forward(self, n: int, device: Device = None) -> tuple[Tensor, Tensor]:
        """Draw normal logits."""
        return _with_ones((self.mean + self.std * torch.randn(n, device=device, dtype=torch.float32)).sigmoid())


class LogNormalTimes(TimeSampler):
    """log(sigma_t / alpha_t) ~ N(mean, std^2), EDM's training noise (Karras et al. 2022 table 1).

    What lies beyond the schedule's range is moved to its end.

    Args:
        schedule: The schedule in use.
        mean: P_mean.
        std: P_std, positive.
    """

    def __init__(self, schedule: Schedule, mean: float = -1.2, std: float = 1.2) -> None:
        super().__init__()
        check_range("mean", mean)
        check_range("std", std, above=0)
        self.schedule, self.mean, self.std = schedule, mean, std

    def forward(self, n: int, device: Device = None) -> tuple[Tensor, Tensor]:
        """Draw noise levels, and find their times."""
        log_ratio = self.mean + self.std * torch.randn(n, device=device, dtype=torch.float32)
        return _with_ones(self.schedule.time_of_log_snr(-2 * log_ratio))


class GridTimes(TimeSampler):
    """t = i / T with i uniform in 1, ..., T: the times of discrete DDPM (Ho et al. 2020 algorithm 1).

    Args:
        num_steps: T.
    """

    def __init__(self, num_steps: int = 1000) -> None:
        super().__init__()
        check_count("num_steps", num_steps, hint="Ho et al. have 1000")
        self.num_steps = num_steps

    def forward(self, n: int, device: Device = None) -> tuple[Tensor, Tensor]:
        """Draw from the grid."""
        return _with_ones(torch.randint(1, self.num_steps + 1, (n,), device=device).float() / self.num_steps)


class LossAwareTimes(TimeSampler):
    """Times where the loss is large, p proportional to sqrt(E[L_t^2]) (Nichol & Dhariwal 2021 eq. 18).

    (0, 1] is cut into bins; t is uniform within a bin, and its importance is 1 / (bins * p), whose mean is 1. E[L_t^2]
    is the mean over the last steps in which the bin occurred, over all processes; until each bin has occurred that
    often, all are equally likely. It makes up for the variational bound's very unequal terms, without changing what is
    minimised.

    Args:
        num_bins: The number of bins; theirs are the steps of discrete DDPM.
        history: The number of steps that each bin remembers.
        uniform: A share of uniform times, so that no bin dies out, in (0, 1].
    """

    mean_squares: Tensor
    counts: Tensor

    def __init__(self, num_bins: int = 1000, history: int = 10, uniform: float = 0.001) -> None:
        super().__init__()
        check_count("num_bins", num_bins)
        check_count("history", history)
        check_range("uniform", uniform, above=0, at_most=1, hint="without any, rare bins would die out")
        self.uniform = uniform
        self.register_buffer("mean_squares", torch.zeros(num_bins, history))  # of each of a bin's last steps
        self.register_buffer("counts", torch.zeros(num_bins, dtype=torch.long))  # steps in which a bin occurred

    def probabilities(self) -> Tensor:
        """Return the probability of each bin, (num_bins,)."""
        num_bins, history = self.mean_squares.shape
        # the smallest number makes losses of 0 uniform, instead of 0 / 0
        root = (self.mean_squares.float().mean(1) + torch.finfo(torch.float32).tiny).sqrt()
        p = (1 - self.uniform) * root / root.sum() + self.uniform / num_bins
        return p.where((self.counts >= history).all(), 1 / num_bins)

    def forward(self, n: int, device: Device = None) -> tuple[Tensor, Tensor]:
        """Draw bins by their probabilities, and times within them."""
        p = self.probabilities()
        bins = torch.multinomial(p, n, replacement=True)
        t = (bins + _uniform(n, p.device)) / len(p)
        return t.to(device), (1 / (len(p) * p[bins])).to(device)

    @torch.no_grad()
    def observe(self, t: Tensor, loss: Tensor) -> None:
        """Remember a step's losses, all processes' together; those that are not finite are left out."""
        num_bins, history = self.mean_squares.shape
        squares = loss.float().square()
        each = torch.stack([squares.isfinite(), squares.nan_to_num(0, 0, 0)]).to(self.counts.device)  # (2, B)
        bins = ((t * num_bins).ceil().long().clamp(1, num_bins) - 1).to(each.device)
        sums = each.new_zeros(2, num_bins).index_add_(1, bins, each)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        has_occurred = sums[0] > 0
        is_oldest = torch.arange(history, device=each.device) == (self.counts % history)[:, None]
        mean_square = (sums[1] / sums[0].clamp(min=1))[:, None]
        self.mean_squares.copy_(mean_square.where(is_oldest & has_occurred[:, None], self.mean_squares))
        self.counts += has_occurred

    def begin_anew(self, model: Any) -> None:
        """Forget all losses."""
        self.mean_squares.zero_()
        self.counts.zero_()


def _uniform(n: int, device: Device) -> Tensor:
    # in (0, 1], and not of the type that half-precision training has made torch's default
    return 1 - torch.rand(n, device=device, dtype=torch.float32)


def _with_ones(t: Tensor) -> tuple[Tensor, Tensor]:
    return t, torch.ones_like(t)
