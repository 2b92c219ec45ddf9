"""Likelihoods of 8-bit images: logistics integrated over the bins of 256 levels, one a value or a mixture."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, constraints
from torch.nn import functional as F

from lit_generative.checks import check_count
from lit_generative.eight_bit import BIN, HALF_BIN
from lit_generative.numerics import at_least_single
from lit_generative.vae.likelihoods.base import ImageDistribution, Likelihood, check_images, wrong_channels

__all__ = [
    "DiscretizedLogisticImages",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixtureImages",
    "DiscretizedLogisticMixtureLikelihood",
]


class DiscretizedLogisticLikelihood(Likelihood):
    """A logistic integrated over the bins of 256 levels (Kingma et al. 2016, IAF, section 5.2; Ho et al. 2020 eq. 13).

    It is a true probability of 8-bit images, so the bound on it is in bits/dim and comparable with the literature.
    There is one learned scale for all pixels.
    """

    is_discrete = True
    has_mass = True

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(0.1)))

    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) with locations ``decoded``, (B, C, H, W)."""
        return ImageDistribution(DiscretizedLogisticImages(at_least_single(decoded), self.log_scale.exp()), self)


class DiscretizedLogisticMixtureLikelihood(Likelihood):
    """A mixture of discretised logistics for each pixel, autoregressive over its channels (Salimans et al. 2017).

    A pixel's channels have one component k in common. Given k, channel c is a discretised logistic around
    m_kc + sum over j < c of alpha_kcj x_j (PixelCNN++, eqs. 1 to 3, for any number of channels). With C channels the
    decoder puts out 1 + 2 C + C (C - 1) / 2 for each component: 3 for gray images, 10 for colour.

    Args:
        components: How many logistics are mixed.
    """

    is_discrete = True
    has_mass = True

    def __init__(self, components: int = 10) -> None:
        super().__init__()
        check_count("components", components)
        self.components = components

    def channels(self, channels: int) -> int:
        """Return K (1 + 2 C + C (C - 1) / 2): weights, locations, scales and coefficients of K components."""
        return self.components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def forward(self, decoded: Tensor) -> Distribution:
        """Return p(x|z) of decoder outputs (B, channels(C), H, W).

        Raises:
            ValueError: If no C has so many channels.
        """
        found = decoded.shape[-3]
        channels = next((c for c in range(1, found) if self.channels(c) >= found), found)
        if self.channels(channels) != found:
            raise wrong_channels(self, found)
        # (B, K, 1 + 2 C + C (C - 1) / 2, H, W)
        parameters = at_least_single(decoded).unflatten(-3, (self.components, -1))
        sizes = [1, channels, channels, channels * (channels - 1) // 2]
        logits, loc, log_scale, coefficients = parameters.split(sizes, dim=-3)
        scale = log_scale.clamp_min(-7).exp()  # as in PixelCNN++; a scale of 1/1000 is a tenth of a level
        weights = logits.squeeze(-3)
        return DiscretizedLogisticMixtureImages(weights, loc, scale, coefficients.tanh(), self)


class DiscretizedLogisticImages(Distribution):
    """Independent pixels on the 256 levels -1, -1 + 2/255, ..., 1.

    A level's probability is the logistic's mass between the midpoints to its neighbours; the outermost two levels take
    the tails, so that the 256 sum to 1.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    has_rsample = False

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[x] in [-1, 1], to half a level: that of the logistic clipped to [-1, 1], 1 - integral of its CDF."""
        upper, lower = (1 - self.loc) / self.scale, (-1 - self.loc) / self.scale
        return 1 - self.scale * (F.softplus(upper) - F.softplus(lower))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw levels in [-1, 1] by inverting the CDF."""
        u = torch.rand(self._extended_shape(torch.Size(sample_shape)), device=self.loc.device).clamp_(1e-7, 1 - 1e-7)
        x = self.loc + self.scale * torch.logit(u)
        return torch.round((x.clamp(-1, 1) + 1) / BIN) * BIN - 1

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of each pixel of ``value`` (levels in [-1, 1]), in nats.

        Between bin edges a > b, log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)),
        which neither underflows nor needs an approximation by the density.
        """
        centred = value - self.loc
        above, below = (centred + HALF_BIN) / self.scale, (centred - HALF_BIN) / self.scale
        log_below_upper_edge = F.logsigmoid(above).where(value < 1 - HALF_BIN, 0)
        log_above_lower_edge = F.logsigmoid(-below).where(value > -1 + HALF_BIN, 0)
        is_inner = (value < 1 - HALF_BIN) & (value > -1 + HALF_BIN)
        log_width = torch.log(-torch.expm1(-BIN / self.scale)).where(is_inner, 0)
        return log_below_upper_edge + log_above_lower_edge + log_width


class DiscretizedLogisticMixtureImages(Distribution):
    """Images whose pixels are independent mixtures of discretised logistics; the channels of one depend on each other.

    Batch shape (B,), event shape (C, H, W).

    Args:
        logits: The components' log-weights, up to a constant, (B, K, H, W).
        loc: m, (B, K, C, H, W).
        scale: The logistics' scales, (B, K, C, H, W).
        coefficients: alpha of the channels before, (B, K, C (C - 1) / 2, H, W): of the second channel on the first, of
            the third on the first and the second, and so on.
        likelihood: Whose it is, for messages.
    """

    arg_constraints = {}  # noqa: RUF012
    has_rsample = False

    def __init__(
        self, logits: Tensor, loc: Tensor, scale: Tensor, coefficients: Tensor, likelihood: Likelihood
    ) -> None:
        self.logits, self.loc, self.scale, self.coefficients = logits, loc, scale, coefficients
        self.likelihood = likelihood
        super().__init__(loc.shape[:-4], loc.shape[-3:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """E[x] in [-1, 1], (B, C, H, W), to half a level.

        Channels after the first are taken as if those before were at their component's mean: exact where no value is
        clipped.
        """
        means: list[Tensor] = []  # of each component, (B, K, H, W)
        for scale in self.scale.unbind(-3):
            means.append(DiscretizedLogisticImages(_location(self.loc, self.coefficients, means), scale).mean)
        weights = torch.softmax(self.logits, dim=-3)
        return torch.stack([(weights * mean).sum(-3) for mean in means], dim=-3)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw images of 256 levels in [-1, 1]: a component for each pixel, then channel after channel."""
        shape = torch.Size(sample_shape)
        k = Categorical(logits=self.logits.movedim(-3, -1), validate_args=False).sample(shape)  # (..., B, H, W)
        loc, scale, coefficients = (_choose(values, k) for values in (self.loc, self.scale, self.coefficients))
        x: list[Tensor] = []
        for scale_of_channel in scale.unbind(-3):
            x.append(DiscretizedLogisticImages(_location(loc, coefficients, x), scale_of_channel).sample())
        return torch.stack(x, dim=-3)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p of images (B, C, H, W) of 256 levels, (B,), in nats.

        Raises:
            ValueError: If the images are not of the shape that the decoder has put out parameters for.
        """
        check_images(self, value, self.likelihood)
        x = value.unsqueeze(-4).unbind(-3)  # C times (B, 1, H, W)
        log_p = self.logits.log_softmax(-3)  # (B, K, H, W)
        for channel, scale in enumerate(self.scale.unbind(-3)):
            loc = _location(self.loc, self.coefficients, x[:channel])
            log_p = log_p + DiscretizedLogisticImages(loc, scale).log_prob(x[channel])
        return torch.logsumexp(log_p, dim=-3).sum((-1, -2))


def _location(loc: Tensor, coefficients: Tensor, before: Sequence[Tensor]) -> Tensor:
    """Return m_c + sum over j < c of alpha_cj x_j, (..., H, W), of the channel c that follows those in ``before``."""
    channel = len(before)
    first = channel * (channel - 1) // 2
    location = loc[..., channel, :, :]
    for j, x in enumerate(before):
        location = location + coefficients[..., first + j, :, :] * x
    return location


def _choose(values: Tensor, k: Tensor) -> Tensor:
    """Return the component ``k`` (..., B, H, W) of ``values`` (B, K, C, H, W) at each pixel, (..., B, C, H, W)."""
    values = values.expand(*k.shape[:-2], *values.shape[-4:])
    index = k[..., None, None, :, :].expand(*k.shape[:-2], 1, *values.shape[-3:])
    return values.gather(-4, index).squeeze(-4)
