"""What the network is trained to put out: the noise, the image, or a mixture of both.

Every prediction is a target F = a x_0 + b eps, whose coefficients a and b depend on alpha and sigma. Together with
x_t = alpha x_0 + sigma eps it makes two linear equations in x_0 and eps, of determinant d = alpha b - sigma a, and so

    x_0 = (b x_t - sigma F) / d       eps = (alpha F - a x_t) / d       |eps - eps_hat|^2 = (alpha / d)^2 |F - F_hat|^2

for every schedule, variance preserving or not. In all that follows sigma is positive, alpha as well or, where the
prediction :attr:`~Prediction.knows_noise_alone`, 0, and they broadcast against images: for images (B, C, H, W) they are
(B, 1, 1, 1), see :func:`~lit_generative.diffusion.schedules.per_image`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from lit_generative.checks import check_range
from lit_generative.description import Described
from lit_generative.diffusion.schedules import Schedule

__all__ = [
    "EDMPrediction",
    "FlowVelocityPrediction",
    "NoisePrediction",
    "Prediction",
    "SamplePrediction",
    "VelocityPrediction",
]


class Prediction(Described, ABC):
    """A target and the way back from it; a subclass writes :meth:`coefficients`.

    Attributes:
        knows_noise_alone: Whether x_0 is had from it where alpha is 0, that is, a is not 0 there.
    """

    knows_noise_alone: bool = True

    def check(self, schedule: Schedule) -> None:
        """Refuse a schedule that ends where this tells nothing of the image."""
        if schedule.ends_in_noise and not self.knows_noise_alone:
            raise ValueError(
                f"prediction={type(self).__name__}: at the schedule's end, where alpha is 0, x_t is the noise itself, "
                "which tells nothing of the image; take VelocityPrediction"
            )

    @abstractmethod
    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b of the target a x_0 + b eps, of the shape of ``alpha``; alpha b must not equal sigma a."""

    def target(self, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return what the network should put out for x_t = alpha x0 + sigma eps, of the shape of the images."""
        a, b = self.coefficients(alpha, sigma)
        return a * x0 + b * eps

    def to_x0(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the estimate of x_0 that ``output``, the network's at ``x_t``, stands for, of the images' shape."""
        _, b = self.coefficients(alpha, sigma)
        d = self._determinant(alpha, sigma)
        return (b / d) * x_t - (sigma / d) * output

    def to_eps(self, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the estimate of the noise, (x_t - alpha x_0) / sigma without the cancellation where sigma is small."""
        a, _ = self.coefficients(alpha, sigma)
        d = self._determinant(alpha, sigma)
        return (alpha / d) * output - (a / d) * x_t

    def error_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return the factor, of the shape of ``alpha``, from squared errors of the target to those of the noise."""
        return (alpha / self._determinant(alpha, sigma)).square()

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Return by what x_t is multiplied before the network sees it, of the shape of ``alpha``; by default 1."""
        return torch.ones_like(alpha)

    def _determinant(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        a, b = self.coefficients(alpha, sigma)
        return alpha * b - sigma * a


class NoisePrediction(Prediction):
    """eps (Ho et al. 2020 eq. 14). Its x_0 is poor where alpha is small: errors are multiplied by sigma / alpha."""

    knows_noise_alone = False

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """F = eps."""
        return torch.zeros_like(alpha), torch.ones_like(alpha)


class SamplePrediction(Prediction):
    """x_0. Its noise is poor where sigma is small: errors are multiplied by alpha / sigma."""

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """F = x_0."""
        return torch.ones_like(alpha), torch.zeros_like(alpha)


class VelocityPrediction(Prediction):
    """v = alpha eps - sigma x_0 (Salimans & Ho 2022 section 4), well conditioned at all times.

    On a variance-preserving path it is the derivative of x_t by the angle phi, with alpha = cos phi, sigma = sin phi.
    """

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """F = alpha eps - sigma x_0."""
        return -sigma, alpha


class FlowVelocityPrediction(Prediction):
    """u = eps - x_0, on the straight path the derivative of x_t by t (Liu et al. 2022 eq. 1, with time reversed).

    With other schedules it is that same difference, and no longer a derivative; the conversions remain exact.
    """

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """F = eps - x_0."""
        return -torch.ones_like(alpha), torch.ones_like(alpha)


class EDMPrediction(Prediction):
    """The preconditioned network of EDM (Karras et al. 2022 eq. 7 and table 1), for any schedule.

    In terms of their x = x_t / alpha with noise s = sigma / alpha, D(x) = c_skip x + c_out F(c_in x), where
    c_skip = sigma_data^2 / (s^2 + sigma_data^2), c_out = s sigma_data / sqrt(s^2 + sigma_data^2) and
    c_in = 1 / sqrt(s^2 + sigma_data^2). The target F = (x_0 - c_skip x) / c_out and the input have unit variance if the
    data have ``sigma_data``^2. Their c_noise = log(s) / 4 is -log_snr / 8: how a network is told the time is not the
    prediction's business.

    Args:
        sigma_data: The standard deviation of the images' pixels, positive.
    """

    def __init__(self, sigma_data: float = 0.5) -> None:
        check_range("sigma_data", sigma_data, above=0, hint="Karras et al. have 0.5")
        self.sigma_data = sigma_data

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """F = (sigma / sigma_data x_0 - alpha sigma_data eps) / n, where n^2 is the variance of x_t.

        This is (x_0 - c_skip x) / c_out with the terms in x_0 put together, which cancel if taken one by one.
        """
        scale = self.input_scale(alpha, sigma)
        return sigma * scale / self.sigma_data, -alpha * self.sigma_data * scale

    def input_scale(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """1 / n = 1 / sqrt(alpha^2 sigma_data^2 + sigma^2), which is c_in / alpha."""
        return torch.rsqrt((alpha * self.sigma_data).square() + sigma.square())
