"""Penalties: what is added to the discriminator's loss, (B,), every few steps.

Most are on the gradient of the logit with respect to the image, and differentiable in the discriminator's parameters
(double backward). The gradient of an image is taken from the sum of the batch's logits, so it is that image's own as
long as the discriminator treats images one by one: no batch normalisation. Squares are summed over all pixels and
channels, in float32 or better.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_generative.checks import check_count, check_range
from lit_generative.description import Described

__all__ = [
    "R1",
    "R2",
    "Discriminate",
    "GradientPenalty",
    "LabelMatchingPenalty",
    "LogitGradient",
    "Penalty",
    "ZeroCentredPenalty",
]

Discriminate = Callable[[Tensor, Tensor | None], Tensor]
"""From images (B, C, H, W) and labels (B,), if there are any, to logits (B,)."""


class Penalty(Described, ABC):
    """A multiple of something that a discriminator should keep small.

    Args:
        weight: The multiple, as the paper has it.
        every: The penalty is due every so many steps, and then that many times as large, so that its mean over steps
            stays the same (lazy regularisation, Karras et al. 2020, StyleGAN2, section 3.1).

    Raises:
        ValueError: If ``weight`` is not positive or ``every`` is below 1.
    """

    def __init__(self, weight: float, every: int = 1) -> None:
        check_range("weight", weight, above=0, hint="to do without the penalty, leave it out")
        check_count("every", every, hint="which is each step")
        self.weight = weight
        self.every = every

    @abstractmethod
    def __call__(self, discriminate: Discriminate, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the penalty (B,), to be added to the discriminator's loss of this step.

        Args:
            discriminate: The discriminator (with its augmentation).
            real: Images (B, C, H, W).
            fake: Generated images of the same shape; no gradient flows back to what made them.
            y: Labels (B,) of both, if there are any.
        """

    def is_due(self, step: int) -> bool:
        """Whether the penalty is added in step ``step``, counted from 0."""
        return step % self.every == 0


class LogitGradient(Penalty):
    """A multiple of what :meth:`measure` finds in the gradients at :meth:`points`."""

    def __call__(self, discriminate: Discriminate, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        """Return weight * every * measure(grad_x D(x)) at the points x, (B,)."""
        points = self.points(real.detach(), fake.detach())
        return self.weight * self.every * self.measure(logit_gradient(discriminate, points, y))

    @abstractmethod
    def points(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the images (B, C, H, W) at which to take the gradients."""

    @abstractmethod
    def measure(self, gradient: Tensor) -> Tensor:
        """Map gradients (B, C * H * W) to what is penalised, (B,)."""


class R1(LogitGradient):
    """gamma / 2 ||grad_x D(x)||^2 at real images (Mescheder et al. 2018 eq. 9); ``weight`` is gamma."""

    def points(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the real images."""
        return real

    def measure(self, gradient: Tensor) -> Tensor:
        """Return ||gradient||^2 / 2, (B,)."""
        return gradient.square().sum(1) / 2


class R2(R1):
    """gamma / 2 ||grad_x D(x)||^2 at generated images (Mescheder et al. 2018 eq. 10); ``weight`` is gamma."""

    def points(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generated images."""
        return fake


class GradientPenalty(LogitGradient):
    """lambda (||grad_x D(x)|| - 1)^2 between real and generated images (WGAN-GP, Gulrajani et al. 2017 eq. 3).

    Args:
        weight: lambda.
        every: As in :class:`Penalty`.
    """

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def points(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return a random point on the line between each pair."""
        return between(real, fake)

    def measure(self, gradient: Tensor) -> Tensor:
        """Return (||gradient|| - 1)^2, (B,)."""
        # vector_norm has the derivative 0 at 0, where that of a square root is infinite
        return (torch.linalg.vector_norm(gradient, dim=1) - 1).square()


class ZeroCentredPenalty(LogitGradient):
    """lambda ||grad_x D(x)||^2 between real and generated images (Thanh-Tung et al. 2019); ``weight`` is lambda."""

    def points(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return a random point on the line between each pair."""
        return between(real, fake)

    def measure(self, gradient: Tensor) -> Tensor:
        """Return ||gradient||^2, (B,)."""
        return gradient.square().sum(1)


class LabelMatchingPenalty(Penalty):
    """weight * softplus(D(x, y') - D(x, y)) for a real image x, its label y and another label y'.

    It teaches a conditional discriminator that a real image under a wrong label is not what was asked for, as GAN-CLS
    does (Reed et al. 2016, algorithm 1); here the two logits are a relativistic pair. The labels y' are those of the
    batch's neighbours; where y' = y there is no penalty.
    """

    def __call__(self, discriminate: Discriminate, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the penalty (B,).

        Raises:
            ValueError: If there are no labels.
        """
        if y is None:
            raise ValueError("penalty LabelMatchingPenalty needs labels: set num_classes, or leave it out")
        others = y.roll(1)
        margin = discriminate(real, others).float() - discriminate(real, y).float()
        return self.weight * self.every * F.softplus(margin) * (others != y)


def logit_gradient(discriminate: Discriminate, x: Tensor, y: Tensor | None) -> Tensor:
    """Return the gradient of each image's logit, (B, C * H * W), with its graph, in float32 or better."""
    x = x.detach().requires_grad_()
    logits = discriminate(x, y).float()
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).flatten(1)


def between(real: Tensor, fake: Tensor) -> Tensor:
    """Return epsilon * real + (1 - epsilon) * fake with one epsilon ~ U(0, 1) per image."""
    epsilon = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device, dtype=real.dtype)
    return epsilon * real + (1 - epsilon) * fake
