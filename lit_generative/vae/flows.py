"""Invertible steps of latents with known Jacobians, of which flow priors and flow posteriors are made.

Their networks compute in float32 under autocast too, for a density is only as exact as its map.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.nn import functional as F

__all__ = ["AffineStep", "AutoregressiveNetwork", "CouplingNetwork"]

Parameters = Callable[[Tensor], tuple[Tensor, Tensor]]


class AffineStep(Transform):
    """y = exp(s(x)) x + t(x), where s and t of a dimension depend on other dimensions of x only, without a circle.

    What was computed on the way from x to y is kept, so that the density of a sample costs nothing more; of any other
    y the inverse is found dimension after dimension.

    Args:
        parameters: Gives s and t, (..., latent_dim) each, for x (..., latent_dim).
        rounds: The longest chain of dimensions of which each depends on the one before: after as many rounds of
            x <- (y - t(x)) exp(-s(x)) the inverse is exact. It is 1 for a coupling, latent_dim for an autoregression.
    """

    domain = codomain = constraints.real_vector  # type: ignore[assignment]
    bijective = True

    def __init__(self, parameters: Parameters, rounds: int) -> None:
        super().__init__(cache_size=1)
        self.parameters = parameters
        self.rounds = rounds
        self._last: tuple[Tensor, Tensor] | None = None  # x and s(x)

    def _call(self, x: Tensor) -> Tensor:
        s, t = self.parameters(x)
        self._last = (x, s)
        return s.exp() * x + t

    def _inverse(self, y: Tensor) -> Tensor:
        x = s = y
        for _ in range(self.rounds):
            s, t = self.parameters(x)
            x = (y - t) * torch.exp(-s)
        self._last = (x, s)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the sum of s(x), (...,)."""
        s = self._last[1] if self._last and self._last[0] is x else self.parameters(x)[0]
        return s.sum(-1)


class CouplingNetwork(nn.Module):
    """s and t of an affine coupling (Dinh et al. 2017, eqs. 7 to 9): of some dimensions, from the others.

    Both are 0 at first. s is bounded by 2 tanh(s / 2), so that no step scales by more than e^2.

    Args:
        is_given: Which dimensions stay as they are and decide what happens to the others, (latent_dim,), bool.
        hidden: The width of the two hidden layers.
    """

    is_given: Tensor

    def __init__(self, is_given: Tensor, hidden: int) -> None:
        super().__init__()
        dim = len(is_given)
        self.register_buffer("is_given", is_given, persistent=False)
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.head = nn.Linear(hidden, 2 * dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return s and t for latents x or y (..., latent_dim); they are 0 where a dimension is given."""
        with torch.autocast(x.device.type, enabled=False):
            s, t = self.head(self.layers(x.where(self.is_given, 0))).chunk(2, dim=-1)
            return (2 * torch.tanh(s / 2)).where(~self.is_given, 0), t.where(~self.is_given, 0)


class AutoregressiveNetwork(nn.Module):
    """s and t of an inverse autoregressive step: of a dimension, from those before it and from the image.

    It is a masked autoencoder (MADE, Germain et al. 2015, eqs. 8 and 9) with two hidden layers. The step is
    sigma x + (1 - sigma) m (Kingma et al. 2016, eq. 14), with sigma close to 1 at first.

    Args:
        latent_dim: The number of dimensions.
        hidden: The width of the hidden layers and of the image's features.
        is_reversed: Whether the last dimension comes first.
    """

    def __init__(self, latent_dim: int, hidden: int, is_reversed: bool) -> None:
        super().__init__()
        order = torch.arange(latent_dim)
        order = order.flip(0) if is_reversed else order
        latest = torch.arange(hidden) % max(1, latent_dim - 1)  # what a hidden unit knows of: the dimensions up to it
        self.image = nn.Linear(hidden, hidden)
        self.first = MaskedLinear(latest[:, None] >= order)
        self.second = MaskedLinear(latest[:, None] >= latest)
        self.head = MaskedLinear((order[:, None] > latest).repeat(2, 1))

    def forward(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return s = log sigma and t = (1 - sigma) m for x (..., B, latent_dim) and features (B, hidden)."""
        with torch.autocast(x.device.type, enabled=False):
            h = F.silu(self.first(x) + self.image(features))
            m, raw = self.head(F.silu(self.second(h))).chunk(2, dim=-1)
            s = F.logsigmoid(raw + 2)  # the paper: one or two, so that the step starts close to the identity
            return s, -torch.expm1(s) * m


class MaskedLinear(nn.Linear):
    """A linear layer of which some weights are not there.

    Args:
        mask: Which are, (out_features, in_features), bool.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return F.linear(x, self.weight.where(self.mask, 0), self.bias)
