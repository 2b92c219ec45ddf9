"""Loss weights: how much an error counts at each noise level, given by its log-SNR lambda.

A weight multiplies the squared error *of the noise*, whatever the network predicts. With a prediction's
:meth:`~lit_generative.diffusion.predictions.Prediction.error_scale`, the loss of an image is

    w(lambda) |eps - eps_hat|^2 = w(lambda) * error_scale * |target - output|^2

so that the choice of a weight and of a prediction are independent: with the same estimate of x_0, all predictions have
the same loss. Papers that weight the error of x_0 have w(lambda) exp(lambda) there, since |eps - eps_hat|^2 is
exp(lambda) |x_0 - x_0_hat|^2.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described
from lit_generative.diffusion.schedules import LOWEST_LOG_SNR, Schedule, step_at

__all__ = [
    "DiscreteBoundWeight",
    "EDMWeight",
    "MinSNRWeight",
    "SimpleWeight",
    "SoftMinSNRWeight",
    "VariationalBoundWeight",
    "Weight",
]


class Weight(Described, ABC):
    """A function of the log-SNR."""

    @abstractmethod
    def __call__(self, log_snr: Tensor) -> Tensor:
        """Return w(lambda), not negative, float32, of the shape of ``log_snr``."""


class SimpleWeight(Weight):
    """1 (Ho et al. 2020 eq. 14)."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        """w = 1."""
        return torch.ones_like(log_snr)


class VariationalBoundWeight(Weight):
    """-lambda'(t) / 2, the variational bound's own weight in continuous time (Kingma et al. 2021 section 5).

    The mean of the weighted squared errors over t ~ U(0, 1) is the bound's diffusion term, in nats; what it lacks are
    the prior's term at t = 1 and the reconstruction's at t = 0, which have no part in training.

    Args:
        schedule: The schedule in use, as the derivative by time is no function of the log-SNR alone.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, log_snr: Tensor) -> Tensor:
        """w = -lambda' / 2, by a difference in float64."""
        t = self.schedule.time_of_log_snr(log_snr).double()
        earlier, later = t * (1 - 1e-5), (t * (1 + 1e-5)).clamp(max=1)
        last = self.schedule.exact_log_snr(later).clamp(min=LOWEST_LOG_SNR)
        fall = self.schedule.exact_log_snr(earlier) - last
        return (fall / (later - earlier) / 2).float()


class DiscreteBoundWeight(Weight):
    """The variational bound's own weight with T steps (Ho et al. 2020 eq. 12), for times i / T.

    T / 2 (SNR(i - 1) / SNR(i) - 1) for the SNR(i) at t = i / T (Kingma et al. 2021 section 4); with betas this is
    T beta_i^2 / (2 sigma_i^2 (1 - beta_i) (1 - alpha_bar_i)) for the posterior's variance sigma_i^2. At i = 1, where
    the posterior has none, it is the same with sigma_1^2 = beta_1: the weight in -log p(x_0|x_1) of a Gaussian decoder
    of that variance. The mean over uniform i is the bound in nats, but for the prior's term and constants.

    Args:
        schedule: The schedule in use.
        num_steps: T.
    """

    def __init__(self, schedule: Schedule, num_steps: int = 1000) -> None:
        check_count("num_steps", num_steps, hint="Ho et al. have 1000")
        self.schedule = schedule
        self.num_steps = num_steps

    def __call__(self, log_snr: Tensor) -> Tensor:
        """w of the step that leads over the time with this log-SNR."""
        i = step_at(self.schedule.time_of_log_snr(log_snr), self.num_steps)
        later = self.schedule.exact_log_snr(i / self.num_steps).clamp(min=LOWEST_LOG_SNR)
        earlier = self.schedule.exact_log_snr((i - 1) / self.num_steps)
        weight = torch.expm1(earlier - later).where(i > 1, 1 + torch.exp(-later))
        return (self.num_steps / 2 * weight).float().to(log_snr.device)


class MinSNRWeight(Weight):
    """min(SNR, gamma) / SNR, for x_0 min(SNR, gamma) (Hang et al. 2023 section 3).

    Args:
        gamma: The SNR from which on errors of x_0 count no more than there; positive.
    """

    def __init__(self, gamma: float = 5.0) -> None:
        check_range("gamma", gamma, above=0, hint="theirs is 5")
        self.log_gamma = math.log(gamma)

    def __call__(self, log_snr: Tensor) -> Tensor:
        """w = min(1, gamma / SNR)."""
        return (self.log_gamma - log_snr).clamp(max=0).exp()


class SoftMinSNRWeight(MinSNRWeight):
    """gamma / (SNR + gamma), for x_0 SNR gamma / (SNR + gamma): min-SNR without its kink.

    It is the weight of k-diffusion and of the hourglass diffusion transformer (Crowson et al. 2024), whose form for x_0
    and alpha = 1 is 1 / (sigma^2 + 1 / gamma).
    """

    def __call__(self, log_snr: Tensor) -> Tensor:
        """w = gamma / (SNR + gamma)."""
        return (self.log_gamma - log_snr).sigmoid()


class EDMWeight(Weight):
    """1 + 1 / (SNR sigma_data^2), for x_0 (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022 table 1).

    Together with an ``EDMPrediction`` of the same ``sigma_data`` the network's own squared error has weight 1.

    Args:
        sigma_data: The standard deviation of the images' pixels, positive.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        check_range("sigma_data", sigma_data, above=0, hint="Karras et al. have 0.5")
        self.sigma_data = sigma_data

    def __call__(self, log_snr: Tensor) -> Tensor:
        """w = 1 + 1 / (SNR sigma_data^2)."""
        return 1 + torch.exp(-log_snr) / self.sigma_data**2
