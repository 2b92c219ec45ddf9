"""Adversarial losses: what generator and discriminator minimise, from the logits of real and generated images.

Logits are (B,), losses (B,), in nats where they are logarithms. D(x) = sigmoid(logit) is the probability that x is
real; log D = -softplus(-logit) and log(1 - D) = -softplus(logit). Everything is in float32 whatever the logits' type,
and everything is to be minimised. In the code, ``real`` and ``fake`` are logits.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from lit_generative.checks import check_range
from lit_generative.description import Described

__all__ = [
    "AdversarialLoss",
    "HingeLoss",
    "LeastSquaresLoss",
    "MinimaxLoss",
    "NonSaturatingLoss",
    "RelativisticLoss",
    "WassersteinLoss",
]


class AdversarialLoss(Described, ABC):
    """A pair of losses, one for each player.

    Attributes:
        boundary: The logit at which the discriminator is undecided; above it an image counts as real. None: only
            differences of logits mean something.
        sees_real: Whether the generator's loss depends on the real logits.
    """

    boundary: float | None = 0.0
    sees_real: ClassVar[bool] = False

    @abstractmethod
    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's loss (B,); ``real`` is ignored unless ``sees_real``."""

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss (B,), that of the i-th real and the i-th generated image together."""


class MinimaxLoss(AdversarialLoss):
    """The zero-sum game min_G max_D E log D(x) + E log(1 - D(G(z))) (Goodfellow et al. 2014 eq. 1).

    The generator's gradient with respect to a fake logit is -D(G(z)): it vanishes where the discriminator is sure.
    """

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return log(1 - D(G(z))), (B,)."""
        return -F.softplus(fake.float())

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -log D(x) - log(1 - D(G(z))), (B,)."""
        return F.softplus(-real.float()) + F.softplus(fake.float())


class NonSaturatingLoss(MinimaxLoss):
    """The minimax discriminator against a generator that maximises log D(G(z)) (Goodfellow et al. 2014 section 3).

    The generator's gradient with respect to a fake logit is D(G(z)) - 1: strongest where the discriminator is sure.
    """

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -log D(G(z)), (B,)."""
        return F.softplus(-fake.float())


class HingeLoss(AdversarialLoss):
    """Margins of 1 on either side of zero (Lim & Ye 2017; Miyato et al. 2018 eq. 16 and 17)."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -D(G(z)), D being the logit, (B,)."""
        return -fake.float()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return max(0, 1 - D(x)) + max(0, 1 + D(G(z))), D being the logit, (B,)."""
        return F.relu(1 - real.float()) + F.relu(1 + fake.float())


class LeastSquaresLoss(AdversarialLoss):
    """Squared distances of logits to targets (Mao et al. 2017 eq. 2).

    The defaults make it their eq. 9; a = -1, b = 1, c = 0 (eq. 8) minimises a Pearson chi^2 divergence.

    Args:
        a: The discriminator's target for generated images.
        b: The discriminator's target for real images.
        c: What the generator wants the discriminator to say.

    Raises:
        ValueError: If ``b`` or ``c`` is not above ``a``, so that higher logits would not mean "real".
    """

    def __init__(self, a: float = 0.0, b: float = 1.0, c: float = 1.0) -> None:
        for name, target in {"a": a, "b": b, "c": c}.items():
            check_range(name, target, hint="it is a logit, such as 0 or 1")
        if not a < min(b, c):
            raise ValueError(f"a={a}, b={b}, c={c}: the target of fakes a must be below b and c, for instance 0, 1, 1")
        self.a, self.b, self.c = a, b, c
        self.boundary = (a + b) / 2

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return (D(G(z)) - c)^2 / 2, D being the logit, (B,)."""
        return (fake.float() - self.c).square() / 2

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return (D(x) - b)^2 / 2 + (D(G(z)) - a)^2 / 2, D being the logit, (B,)."""
        return ((real.float() - self.b).square() + (fake.float() - self.a).square()) / 2


class WassersteinLoss(AdversarialLoss):
    """The difference of mean logits, whose maximum over 1-Lipschitz critics is a distance (Arjovsky et al. 2017 eq. 2).

    The critic must be kept Lipschitz: by a gradient penalty, spectral normalisation or clipped weights.
    """

    boundary = None

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -f(G(z)), f being the logit, (B,)."""
        return -fake.float()

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return f(G(z)) - f(x), f being the logit, (B,)."""
        return fake.float() - real.float()


class RelativisticLoss(AdversarialLoss):
    """Each real image against one generated image (pairing: Jolicoeur-Martineau 2019; R3GAN, Huang et al. 2024 eq. 2).

    sigmoid(real - fake) is the probability that the real one of a pair looks more real. The discriminator maximises its
    logarithm, the generator that of the opposite; no generator can win by moving all its images to one place.
    """

    boundary = None
    sees_real = True

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -log sigmoid(fake - real), (B,)."""
        return F.softplus(real.float() - fake.float())

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return -log sigmoid(real - fake), (B,)."""
        return F.softplus(fake.float() - real.float())
