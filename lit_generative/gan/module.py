"""The generative adversarial network."""

import functools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from lit_generative.calls import NetworkCall
from lit_generative.checks import check_count, check_range
from lit_generative.core import Batch, GenerativeModule
from lit_generative.gan.augment import Augmentation
from lit_generative.gan.losses import AdversarialLoss
from lit_generative.gan.penalties import Penalty
from lit_generative.interpolation import spherical
from lit_generative.manual_optimization import (
    accumulate,
    check_trainer,
    cut,
    end_batch,
    frozen,
    optimizer_step,
)
from lit_generative.nn.conditions import Condition
from lit_generative.nn.image_conditions import refuse_images
from lit_generative.optim import check_optimisation
from lit_generative.optimisation import make_optimizer, make_schedule
from lit_generative.processes import world_size
from lit_generative.sampling import check_labels, inference, sampling_mode
from lit_generative.training_options import check_batch_norm

__all__ = ["GAN"]

Part = tuple[Tensor, Tensor | None, Tensor]  # images, labels, latents

NETWORKS = DISCRIMINATOR, GENERATOR = "discriminator", "generator"  # in the order of their optimizers
MISLEADING = (
    r".*`lr_scheduler\.step\(\)` before `optimizer\.step\(\)`",  # rounds come before the generator's first step
    ".*ModelCheckpoint with manual optimization and every_n_train_steps",  # it does save what it should
)
INSTEAD = {
    "gradient_clip_val": "model.generator_clip and model.discriminator_clip",
    "accumulate_grad_batches": "model.micro_batches",
}


class GAN(GenerativeModule):
    """The generative adversarial network of Goodfellow et al. 2014: a game of two networks, eq. 1.

    Each batch is one round, and one ``global_step``: the discriminator takes a step on real and generated images, and
    then the generator takes one against the new discriminator, with the same images.

    To change it, override one hook: :meth:`sample_latent`, :meth:`discriminate`, :meth:`generator_loss` or
    :meth:`discriminator_loss`.

    Args:
        generator: Maps latents (B, latent_dim) and labels to images (B, C, H, W) in [-1, 1]. It is called with
            ``forward(z, y)``, where ``y`` is None for a model without classes.
        discriminator: Maps images (B, C, H, W) and labels to logits (B,), larger for real ones: ``forward(x, y)``.
        loss: What the two minimise.
        latent_dim: The size of z.
        penalties: What is added to the discriminator's loss, such as ``[R1(1.0, every=8), R2(1.0, every=8)]``.
        augment: Changes what the discriminator sees, real and generated images alike, while training.
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        discriminator_steps: Rounds for each step of the generator.
        micro_batches: Parts that a batch is cut into, whose gradients accumulate: the same step with less memory.
        generator_optimizer: Makes the optimizer from the parameters. None: Adam, lr 2e-4, betas 0 and 0.99.
        discriminator_optimizer: The same for the discriminator.
        generator_lr_scheduler: Makes the learning rate's schedule, which advances every round.
        discriminator_lr_scheduler: The same for the discriminator.
        generator_clip: The norm that the generator's gradient is clipped to.
        discriminator_clip: The same for the discriminator.
        condition: What else the model and its networks are told, such as attributes; ``num_classes`` is short for one
            of classes. No image.

    Raises:
        ValueError: If a number is not positive; and in the trainer, if that is told to clip or to accumulate gradients
            or shards the networks, or if a schedule watches a metric.
    """

    family = "GAN"
    loss_is_quality: ClassVar[bool] = False
    sampler_name: ClassVar[str] = "generator"

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: AdversarialLoss,
        latent_dim: int,
        penalties: Sequence[Penalty] = (),
        augment: Augmentation | None = None,
        num_classes: int | None = None,
        discriminator_steps: int = 1,
        micro_batches: int = 1,
        generator_optimizer: OptimizerCallable | None = None,
        discriminator_optimizer: OptimizerCallable | None = None,
        generator_lr_scheduler: LRSchedulerCallable | None = None,
        discriminator_lr_scheduler: LRSchedulerCallable | None = None,
        generator_clip: float | None = None,
        discriminator_clip: float | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__(num_classes, condition=condition)
        refuse_images(condition, "GAN")
        counts = {"latent_dim": latent_dim, "discriminator_steps": discriminator_steps, "micro_batches": micro_batches}
        for name, count in counts.items():
            check_count(name, count)
        for name, clip in {"generator_clip": generator_clip, "discriminator_clip": discriminator_clip}.items():
            check_range(name, clip, above=0)
        check_optimisation(generator_optimizer, generator_lr_scheduler, "generator_")
        check_optimisation(discriminator_optimizer, discriminator_lr_scheduler, "discriminator_")
        self.automatic_optimization = False
        self.generator = generator
        self.discriminator = discriminator
        self.loss = loss
        self.latent_dim = latent_dim
        self.penalties = penalties
        self.augment = augment
        self.discriminator_steps = discriminator_steps
        self.micro_batches = micro_batches
        default = functools.partial(Adam, lr=2e-4, betas=(0.0, 0.99))
        self.make_optimizers = (discriminator_optimizer or default, generator_optimizer or default)
        self.make_lr_schedulers = (discriminator_lr_scheduler, generator_lr_scheduler)
        self.clips = (discriminator_clip, generator_clip)
        self._latest: dict[str, Tensor] = {}  # losses (B,); not every round has all of them

    def network_calls(self, x: Tensor, y: Tensor | None = None) -> list[NetworkCall]:
        """Return how generator and discriminator are called, unless :meth:`discriminate` is another one."""
        of_generator, shape = {"z": self.sample_latent(len(x)), "y": y}, tuple(x.shape)
        calls = [NetworkCall("generator", self.generator, of_generator, shape, "images, (B, C, H, W)")]
        if type(self).discriminate is GAN.discriminate:
            logits = "a logit an image, (B,)"
            calls.append(NetworkCall("discriminator", self.discriminator, {"x": x, "y": y}, shape[:1], logits))
        return calls

    def plan(self) -> dict[str, str]:
        """Say how images are augmented, for the plan before a training."""
        return {} if self.augment is None else {"augmented": self.augment.plan()}

    # ---------------------------------------------------------------- the game

    def sample_latent(self, n: int) -> Tensor:
        """Draw z ~ N(0, I), (n, latent_dim)."""
        return torch.randn(n, self.latent_dim, device=self.device)

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the discriminator's logits (B,) of images (B, C, H, W), which are augmented while training."""
        return self.discriminator(x if self.augment is None or not self.training else self.augment(x), y)

    def discriminator_loss(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        """Return what the discriminator minimises, (B,), for images (B, C, H, W) with the same labels."""
        real_logits, fake_logits = self.discriminate(real, y), self.discriminate(fake, y)
        self.observe(real_logits, fake_logits)
        return self.loss.discriminator(real_logits, fake_logits)

    def observe(self, real_logits: Tensor, fake_logits: Tensor) -> None:
        """Let the augmentation adapt to logits (B,); whoever overrides :meth:`discriminator_loss` calls it there."""
        if self.augment is not None and self.training:
            boundary = fake_logits if self.loss.boundary is None else self.loss.boundary
            self.augment.observe((real_logits - boundary).detach(), len(real_logits) * world_size())

    def generator_loss(self, real: Tensor, fake: Tensor, y: Tensor | None = None) -> Tensor:
        """Return what the generator minimises, (B,), for images (B, C, H, W) with the same labels."""
        fake_logits = self.discriminate(fake, y)
        return self.loss.generator(self.discriminate(real, y) if self.loss.sees_real else fake_logits, fake_logits)

    # ---------------------------------------------------------------- a round

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Play one round on a batch; the images count towards ``images_seen``."""
        x, y = self.unpack(batch)
        is_logged = self.is_logged_step
        generator_moves = (self.trainer.global_step + 1) % self.discriminator_steps == 0
        parts = cut(self.micro_batches, x, y, self.sample_latent(len(x)))
        with torch.set_grad_enabled(generator_moves and len(parts) == 1):  # the graphs of all parts would be too large
            fakes = [self.generator(z, y) for _, y, z in parts]
        self._move(DISCRIMINATOR, self._discriminator_losses(parts, fakes), len(x), ends_round=not generator_moves)
        if generator_moves:
            self._move(GENERATOR, self._generator_losses(parts, fakes), len(x), ends_round=True)
        self.count_images(batch)  # before the schedules, which may follow them
        end_batch(self)
        if is_logged:
            self.log_training(self._latest)

    def _discriminator_losses(self, parts: list[Part], fakes: list[Tensor]) -> Iterator[dict[str, Tensor]]:
        due = [penalty for penalty in self.penalties if penalty.is_due(self.trainer.global_step)]
        for (x, y, _), fake in zip(parts, map(Tensor.detach, fakes), strict=True):
            loss = self.discriminator_loss(x, fake, y)
            penalties = [penalty(self.discriminate, x, fake, y) for penalty in due]
            yield {"discriminator_loss": loss} | ({"penalty": torch.stack(penalties).sum(0)} if due else {})

    def _generator_losses(self, parts: list[Part], fakes: list[Tensor]) -> Iterator[dict[str, Tensor]]:
        with frozen(self.discriminator):
            for (x, y, z), fake in zip(parts, fakes, strict=True):
                fake = fake if fake.requires_grad else self.generator(z, y)
                yield {"generator_loss": self.generator_loss(x, fake, y)}

    def _move(self, network: str, parts: Iterable[dict[str, Tensor]], n: int, *, ends_round: bool) -> None:
        """Let a network take its step on ``n`` images, unless what it minimises is not finite."""
        losses = accumulate(self, parts, n)
        self._latest |= losses
        if self.is_logged_step or self.device.type == "cpu":  # elsewhere a look at a value waits for the device
            self.check_finite({f"{network}_loss": torch.stack([*losses.values()]).sum(0)})
        optimizer_step(self, NETWORKS.index(network), counts=ends_round)

    # ---------------------------------------------------------------- what it is used for

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return both losses and, as ``loss``, their sum, (B,): who is ahead in the game, no measure of quality."""
        fake = self.generator(self.sample_latent(len(x)), y)
        losses = {"discriminator_loss": self.discriminator_loss(x, fake, y)}
        losses["generator_loss"] = self.generator_loss(x, fake, y)
        return {"loss": sum(losses.values(), torch.zeros(())), **losses}

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Return images (n, C, H, W) in [-1, 1] of new latents."""
        return self.generator(self.sample_latent(n), y)

    def interpolate_samples(
        self, n: int, steps: int = 8, y: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return images (steps, n, C, H, W) in [-1, 1] along great arcs between ``n`` pairs of latents.

        The arcs suit normal latents; override this with :func:`~lit_generative.interpolation.linear` for others. Of a
        conditional model, all of a path have one label, of ``y`` (n,); ``generator`` is the source of all randomness.
        """
        y = check_labels(self, n, y)
        with inference(self, generator):
            path = spherical(self.sample_latent(n), self.sample_latent(n), steps)
            return torch.stack([self.generator(z, y).float().clamp(-1, 1) for z in path])

    def diagnose(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Say where the game stands on images ``x``, without a trace: no gradients, statistics or noise are touched.

        Returns:
            ``real_logits`` and ``fake_logits``, (B,), and ``generator_gradient``, (B,): for each generated image the
            norm of the gradient of the generator's loss with respect to it, all that the generator learns from.
        """
        with torch.inference_mode(False), inference(self, torch.Generator(self.device).manual_seed(0)):
            x, y = x.clone(), None if y is None else y.clone()  # autograd refuses those made in validation
            fake = self.generator(self.sample_latent(len(x)), y).requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.generator_loss(x, fake, y).sum(), fake)
            return {
                "real_logits": self.discriminate(x, y).float(),
                "fake_logits": self.discriminate(fake.detach(), y).float(),
                "generator_gradient": gradient.float().flatten(1).norm(dim=1),
            }

    # ---------------------------------------------------------------- optimisation

    def configure_callbacks(self) -> list[Any]:
        """Check the trainer; this is the first hook that it calls."""
        check_trainer(self.trainer, INSTEAD)
        return super().configure_callbacks()

    def look_at(self, batch: Batch, split: str) -> None:
        """Check the first batch of a split, and that none of its parts is too small for batch normalisation."""
        super().look_at(batch, split)
        if split == "training":
            sizes = [len(part) for (part,) in cut(self.micro_batches, self.unpack(batch)[0])]
            networks = {name: self.get_submodule(name) for name in NETWORKS}
            check_batch_norm(networks, sizes, f"batch_size ({sum(sizes)}) or micro_batches ({self.micro_batches})")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the discriminator's and the generator's optimizer and, where there is one, their schedules."""
        trainer, before = self.trainer, self.goes_on_from
        networks = zip(self.make_optimizers, map(self.get_submodule, NETWORKS), strict=True)
        optimizers = [make_optimizer(make, network.parameters(), trainer) for make, network in networks]
        makers = zip(self.make_lr_schedulers, optimizers, strict=True)
        schedules = [make_schedule(make, optimizer, trainer, before) for make, optimizer in makers if make is not None]
        if any("monitor" in schedule for schedule in schedules):
            raise ValueError("a schedule that watches a metric cannot follow a game of two losses: use another one")
        for untrue in MISLEADING:
            warnings.filterwarnings("ignore", untrue)
        return optimizers, schedules  # type: ignore[return-value]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient, which is unscaled here, to the norm set for its network."""
        clip = self.clips[self.trainer.optimizers.index(optimizer)]
        if clip is not None:
            self.clip_gradients(optimizer, gradient_clip_val=clip, gradient_clip_algorithm="norm")
