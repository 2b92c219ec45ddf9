"""What makes an autoencoder's images sharp: a discriminator that tells them from real ones."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Adam

from lit_generative.checks import check_range
from lit_generative.description import Described
from lit_generative.gan.augment import Augmentation
from lit_generative.gan.losses import AdversarialLoss, HingeLoss
from lit_generative.gan.penalties import Penalty
from lit_generative.optim import check_optimisation
from lit_generative.processes import world_size

__all__ = ["Adversary"]

LEAST_NORM = 1e-6  # of a gradient that is divided by
LARGEST_BALANCE = 1e6  # a likelihood is a sum over pixels; theirs are means, and 1e4 is the bound in their code


class Adversary(Described, nn.Module):
    """A discriminator of real images and an autoencoder's, and how much it counts.

    What the autoencoder minimises becomes

        -ELBO + weight * lambda * L_G + features_weight * |f(x) - f(x_hat)|^2 / 2

    where L_G is the generator's loss at the images x_hat and lambda = |grad -log p(x|z)| / |grad L_G|, both with
    respect to the decoder's last weight (Esser et al. 2021, eq. 7), so that ``weight`` is the ratio of two gradients,
    whatever their units. It is measured at each step. Above 1 nothing holds the images where they are: the adversary
    counts the more, the less they are like the data. Unless ``is_balanced``, lambda is 1 and ``weight`` in nats. f are
    the discriminator's activations (Larsen et al. 2016, eq. 7), all levels together.

    Args:
        discriminator: Maps images (B, C, H, W) and labels to logits, (B,) or (B, h, w) of patches; with
            ``features_weight`` it has ``features(x)``, as :class:`~lit_generative.nn.PatchDiscriminator` has.
        loss: What the two minimise. None: the hinge loss.
        weight: The ratio of the gradients, or that of the losses.
        features_weight: The weight of the squared distance of activations; 0 leaves it out.
        penalties: What is added to the discriminator's loss.
        augment: Changes what the discriminator sees while training.
        after_images: The game begins when so many training images were seen: before, there is little to tell apart.
        is_balanced: Whether the weight is a ratio of gradients.
        sees_samples: Whether images of latents that samples are drawn from are in the game, too (Larsen et al.,
            algorithm 1).
        optimizer: Makes the discriminator's optimizer. None: Adam, lr 2e-4, betas 0.5 and 0.9.
        lr_scheduler: Makes the schedule of its learning rate.

    Raises:
        ValueError: If a weight is negative, or activations are asked for that the discriminator does not have.
    """

    def __init__(
        self,
        discriminator: nn.Module,
        loss: AdversarialLoss | None = None,
        weight: float = 0.5,
        features_weight: float = 0.0,
        penalties: Sequence[Penalty] = (),
        augment: Augmentation | None = None,
        after_images: int = 10_000,
        is_balanced: bool = True,
        sees_samples: bool = False,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        check_range("weight", weight, above=0, hint="without an adversary, take a VAE")
        check_range("features_weight", features_weight, at_least=0)
        check_range("after_images", after_images, at_least=0)
        check_optimisation(optimizer, lr_scheduler, "adversary.")
        if features_weight and not hasattr(discriminator, "features"):
            name = type(discriminator).__name__
            raise ValueError(
                f"features_weight={features_weight:g}: {name} has no features(x); give a PatchDiscriminator"
            )
        self.discriminator: Any = discriminator
        self.loss = loss or HingeLoss()
        self.weight, self.features_weight = weight, features_weight
        self.penalties, self.augment = penalties, augment
        self.after_images, self.is_balanced, self.sees_samples = after_images, is_balanced, sees_samples
        self.make_optimizer = optimizer or functools.partial(Adam, lr=2e-4, betas=(0.5, 0.9))
        self.make_lr_scheduler = lr_scheduler

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the logits, (B,) or (B, h, w), of images (B, C, H, W), which are augmented while training."""
        return self.discriminator(x if self.augment is None or not self.training else self.augment(x), y)

    def discriminator_losses(
        self, real: Tensor, fakes: Sequence[Tensor], y: Tensor | None, step: int
    ) -> dict[str, Tensor]:
        """Return the discriminator's loss and, where one is due in ``step``, the penalty, (B,).

        Args:
            real: Images (B, C, H, W).
            fakes: Batches of the autoencoder's images of the same shape, which count equally.
            y: Labels (B,) of a conditional model.
            step: Which training step it is.
        """
        real_logits = self.discriminate(real, y)
        logits = [self.discriminate(fake.detach(), y) for fake in fakes]
        if self.augment is not None and self.training:
            boundary = logits[0] if self.loss.boundary is None else self.loss.boundary
            self.augment.observe(_of_images(real_logits - boundary).detach(), len(real) * world_size())
        loss = torch.stack([_of_images(self.loss.discriminator(real_logits, fake)) for fake in logits]).mean(0)
        due = [penalty for penalty in self.penalties if penalty.is_due(step)]
        found = [penalty(lambda x, y: _of_images(self.discriminate(x, y)), real, fakes[0], y) for penalty in due]
        return {"discriminator_loss": loss} | ({"penalty": torch.stack(found).sum(0)} if found else {})

    def generator_loss(self, real: Tensor, fakes: Sequence[Tensor], y: Tensor | None = None) -> Tensor:
        """Return what the autoencoder minimises in the game, (B,), the mean over batches of its images."""
        real_logits = self.discriminate(real, y) if self.loss.sees_real else None
        losses = []
        for fake in fakes:
            logits = self.discriminate(fake, y)
            losses.append(_of_images(self.loss.generator(logits if real_logits is None else real_logits, logits)))
        return torch.stack(losses).mean(0)

    def features_distance(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return |f(x) - f(x_hat)|^2 / 2, (B,), summed over the activations of all levels."""
        with torch.no_grad():
            wanted = self.discriminator.features(real)
        pairs = zip(wanted, self.discriminator.features(fake), strict=True)
        return torch.stack([(a.float() - b.float()).square().flatten(1).sum(1) for a, b in pairs]).sum(0) / 2


def gradients(nll: Tensor, adversarial: Tensor, at: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Return the gradients of the means of two losses (B,) at a weight, both in its shape, float32."""
    losses = (nll.mean(), adversarial.mean())
    nll_gradient, own = (torch.autograd.grad(loss, at, retain_graph=True)[0].float() for loss in losses)
    return nll_gradient, own


def balance(nll_gradient: Tensor, adversarial_gradient: Tensor) -> Tensor:
    """Return lambda, the ratio of the norms of two gradients, a scalar."""
    return (nll_gradient.norm() / adversarial_gradient.norm().clamp(min=LEAST_NORM)).clamp(max=LARGEST_BALANCE)


def last_weight(network: nn.Module) -> nn.Parameter:
    """Return the weight of a network's last layer."""
    return [p for p in network.parameters() if p.ndim > 1][-1]


def _of_images(values: Tensor) -> Tensor:
    """Return the mean of each image's values, (B,)."""
    return values if values.ndim == 1 else values.flatten(1).mean(1)
