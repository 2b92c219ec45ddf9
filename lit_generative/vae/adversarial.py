"""Autoencoders against a discriminator: VAE/GAN and VQGAN."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.distributions import Distribution

from lit_generative.contracts import Batch
from lit_generative.core import GenerativeModule
from lit_generative.gan.losses import AdversarialLoss
from lit_generative.manual_optimization import accumulate, average, check_trainer, end_batch, frozen, optimizer_step
from lit_generative.optimisation import make_optimizer, make_schedule
from lit_generative.sampling import inference
from lit_generative.vae.adversary import Adversary, balance, gradients, last_weight
from lit_generative.vae.module import VAE
from lit_generative.vae.vq import VQVAE

__all__ = ["VAEGAN", "VQGAN"]

DISCRIMINATOR, AUTOENCODER = 0, 1  # the places of their optimizers
INSTEAD = {
    "gradient_clip_val": "lower learning rates",
    "accumulate_grad_batches": "a larger data.batch_size",
}


class PlaysAgainstDiscriminator(GenerativeModule, ABC):
    """What an autoencoder does that has an adversary, beside all that it does without.

    Each batch is one ``global_step``: the discriminator takes a step on real images and on those that the autoencoder
    makes, and then the autoencoder takes one on its own loss and the discriminator's judgement of the same images.
    """

    decoder: Any
    loss: AdversarialLoss
    losses_and_decoded: Any  # of the autoencoder: losses (B,) by name, and p(x|z)

    def __init__(self, *, adversary: Adversary, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.automatic_optimization = False
        self.adversary = adversary
        self.loss = adversary.loss  # what GANHealth asks for

    @abstractmethod
    def decoded_samples(self, n: int, y: Tensor | None = None) -> Tensor:
        """Return images (n, C, H, W) as samples are, through which gradients reach the decoder."""

    # ---------------------------------------------------------------- a step

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Take both steps on a batch; the images count towards ``images_seen``."""
        x, y = self.unpack(batch)
        losses, p = self.losses_and_decoded(x, y)
        terms, is_playing = {"loss": losses["loss"]}, self.images_seen >= self.adversary.after_images
        if is_playing:
            fakes = self._fakes(x, y, p)
            losses |= self._move(DISCRIMINATOR, self._discriminator_losses(x, fakes, y), len(x))
            with frozen(self.adversary.discriminator):
                terms |= self._terms(losses["nll"], x, fakes, y)
        self._move(AUTOENCODER, terms, len(x))
        self.count_images(batch)
        end_batch(self)
        if self.is_logged_step:
            self.log_training({name: loss.detach() for name, loss in (losses | terms).items()})

    def _fakes(self, x: Tensor, y: Tensor | None, p: Distribution) -> list[Tensor]:
        drawn = [self.decoded_samples(len(x), y)] if self.adversary.sees_samples else []
        return [p.mean, *drawn]

    def _discriminator_losses(self, x: Tensor, fakes: Sequence[Tensor], y: Tensor | None) -> dict[str, Tensor]:
        return self.adversary.discriminator_losses(x, fakes, y, self.trainer.global_step)

    def _terms(self, nll: Tensor, x: Tensor, fakes: Sequence[Tensor], y: Tensor | None) -> dict[str, Tensor]:
        """Return what the adversary adds to the autoencoder's loss, (B,)."""
        adversary = self.adversary
        judged = adversary.generator_loss(x, fakes, y)
        weight: float | Tensor = adversary.weight
        if adversary.is_balanced:
            found = gradients(nll, judged, last_weight(self.decoder))
            average(self.trainer, found)  # else each process had a balance of its own
            weight = weight * balance(*found)
        terms = {"adversarial_loss": weight * judged}
        if adversary.features_weight:
            terms["features_loss"] = adversary.features_weight * adversary.features_distance(x, fakes[0])
        return terms

    def _move(self, place: int, terms: dict[str, Tensor], n: int) -> dict[str, Tensor]:
        """Let a network take its step on ``n`` images, unless what it minimises is not finite; return the terms."""
        found = accumulate(self, [terms], n)
        if self.is_logged_step or self.device.type == "cpu":
            self.check_finite({"loss" if place else "discriminator_loss": torch.stack([*found.values()]).sum(0)})
        optimizer_step(self, place, counts=place == AUTOENCODER)
        return found

    # ---------------------------------------------------------------- what GANHealth asks for

    def diagnose(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Say how the game stands on images ``x``, as :meth:`~lit_generative.gan.GAN.diagnose`; logits are means."""
        with torch.inference_mode(False), inference(self, torch.Generator(self.device).manual_seed(0)):
            x, y = x.clone(), None if y is None else y.clone()  # autograd refuses those made in validation
            fake = self.losses_and_decoded(x, y)[1].mean.detach().requires_grad_()
            with torch.enable_grad():
                judged = self.adversary.generator_loss(x, [fake], y)
                (gradient,) = torch.autograd.grad(judged.sum(), fake)
            logits = [self.adversary.discriminate(images, y).float() for images in (x, fake.detach())]
            real, generated = (values.flatten(1).mean(1) if values.ndim > 1 else values for values in logits)
            norms = gradient.float().flatten(1).norm(dim=1)
            return {"real_logits": real, "fake_logits": generated, "generator_gradient": norms}

    # ---------------------------------------------------------------- optimisation

    def configure_callbacks(self) -> list[Any]:
        """Check the trainer; this is the first hook that it calls."""
        check_trainer(self.trainer, INSTEAD)
        return super().configure_callbacks()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the discriminator's and the autoencoder's optimizer and, where there is one, their schedules."""
        trainer, before, adversary = self.trainer, self.goes_on_from, self.adversary
        own = [p for name, p in self.named_parameters() if not name.startswith("adversary.")]
        optimizers = [
            make_optimizer(adversary.make_optimizer, adversary.discriminator.parameters(), trainer),
            make_optimizer(self.make_optimizer, own, trainer),
        ]
        makers = zip((adversary.make_lr_scheduler, self.make_lr_scheduler), optimizers, strict=True)
        schedules = [make_schedule(make, optimizer, trainer, before) for make, optimizer in makers if make is not None]
        if any("monitor" in schedule for schedule in schedules):
            raise ValueError("a schedule that watches a metric cannot follow a game of two losses: use another one")
        warnings.filterwarnings("ignore", r".*`lr_scheduler\.step\(\)` before `optimizer\.step\(\)`")
        return optimizers, schedules  # type: ignore[return-value]


class VAEGAN(PlaysAgainstDiscriminator, VAE):
    """A VAE whose decoder is also a generator (VAE/GAN, Larsen et al. 2016).

    The bound stays what it is and is reported as of any :class:`~lit_generative.vae.VAE`; the decoder is no longer the
    one that makes it highest, since sharp details that are not those of the image cost likelihood.

    Args:
        adversary: The discriminator, and how much it counts.
        **arguments: Those of a VAE, by name.
    """

    def decoded_samples(self, n: int, y: Tensor | None = None) -> Tensor:
        """Return the means of p(x|z), (n, C, H, W), for z as :meth:`sample` draws them."""
        return self.decode(self.draw_latents(n, y), y).mean


class VQGAN(PlaysAgainstDiscriminator, VQVAE):
    """A vector-quantised VAE with an adversary (Esser et al. 2021).

    Args:
        adversary: The discriminator, and how much it counts.
        **arguments: Those of a VQVAE, by name.

    Raises:
        ValueError: If the adversary is to see samples, whose codes are drawn one after the other.
    """

    def __init__(self, *, adversary: Adversary, **arguments: Any) -> None:
        if adversary.sees_samples:
            raise ValueError("adversary.sees_samples=True: drawing the codes of a VQGAN takes too long for each step")
        super().__init__(adversary=adversary, **arguments)

    def decoded_samples(self, n: int, y: Tensor | None = None) -> Tensor:
        """Return the means of p(x|q), (n, C, H, W), for codes as :meth:`sample` draws them."""
        codes = self.code_prior.sample(n, self.encoder.grid, y, self.temperature)
        return self.decode(self.codebook.lookup(codes), y).mean
