"""The ladder VAE: latents from coarse to fine, each level's prior and posterior given the levels above."""

from functools import partial
from math import inf
from typing import Any, ClassVar

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.optim import Optimizer

from lit_generative.checks import check_count, check_range
from lit_generative.core import GenerativeModule
from lit_generative.sampling import check_labels, inference, sampling_mode
from lit_generative.vae.bounds import Draw, estimate_likelihood, negative_bound
from lit_generative.vae.likelihoods import Likelihood

__all__ = ["LadderVAE"]

PATIENCE = 100  # skipped updates in a row that end a run


class LadderVAE(GenerativeModule):
    """A hierarchical VAE in the manner of the very deep VAE (VDVAE, Child 2021).

    With latents z = (z_1, ..., z_L) from coarse to fine, p(x, z) = p(x|z) prod_l p(z_l | z_<l) and
    q(z|x) = prod_l q(z_l | x, z_<l), so that (eq. 1)

        log p(x) >= E_q[log p(x|z) - sum_l KL(q(z_l | x, z_<l) || p(z_l | z_<l))],

    estimated with one z an image and the KLs of diagonal normals in closed form. Updates whose gradient is too large or
    not finite are skipped and counted (section 3.3), as ``skipped_updates``; clipping them is the trainer's
    ``gradient_clip_val``.

    To change it, override one hook: :meth:`decode` or :meth:`objective`.

    Args:
        network: A :class:`~lit_generative.nn.LadderNetwork`, or what has its ``ascend`` and ``descend``.
        likelihood: Maps what the network puts out to a distribution over images.
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        kl_warm_up: Training images over which the KL's weight in the loss grows from 0 to 1.
        skip_above: The norm of the gradient, of the mean loss in nats, above which an update is skipped. None: only
            updates of a gradient that is not finite are.
        temperature: A factor of the prior's standard deviations when sampling.
        optimizer: Makes the optimizer from the parameters. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule, which advances every step.

    Raises:
        ValueError: If ``kl_warm_up`` or ``temperature`` is negative, or ``skip_above`` is not positive.
    """

    network: Any  # of which more is asked than a call: to ascend and to descend
    family = "VAE"
    sampler_name: ClassVar[str] = "top-down prior, mean of the likelihood"
    loss_units = dict.fromkeys(("loss", "nelbo", "nll", "kl"), "nats") | {"bits_per_dim": "bits/dim"}

    def __init__(
        self,
        network: nn.Module,
        likelihood: Likelihood,
        num_classes: int | None = None,
        kl_warm_up: int = 0,
        skip_above: float | None = None,
        temperature: float = 1.0,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(num_classes, optimizer, lr_scheduler)
        check_count("kl_warm_up", kl_warm_up, at_least=0)
        check_range("skip_above", skip_above, above=0, hint="null skips only what is not finite")
        check_range("temperature", temperature, at_least=0)
        self.network = network
        self.likelihood = likelihood
        self.kl_warm_up = kl_warm_up
        self.skip_above = skip_above
        self.temperature = temperature
        self.skipped_updates = nn.Buffer(torch.zeros((), dtype=torch.long))
        self._skipped_in_a_row = 0

    def begin_anew(self, model: Any) -> None:
        """Count from 0."""
        self.skipped_updates.zero_()

    # ---------------------------------------------------------------- learning

    def decode(self, decoded: Tensor) -> Distribution:
        """Return p(x|z), batch shape (B,), of what the network puts out."""
        return self.likelihood(decoded)

    def objective(self, nll: Tensor, kl: Tensor) -> Tensor:
        """Return what is minimised, (B,): the negative bound, with the KL's weight in training.

        Args:
            nll: -log p(x|z), (B,), in nats.
            kl: The sum of the levels' KLs, (B,), in nats.
        """
        return nll + self.kl_weight * kl

    @property
    def kl_weight(self) -> float:
        """The weight of the KL at present: 1 in evaluation, where the bound is meant."""
        return min(1.0, self.images_seen / self.kl_warm_up) if self.training and self.kl_warm_up else 1.0

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return loss, nll, kl and negative bound (nelbo), (B,), in nats; bits_per_dim for a discrete likelihood."""
        decoded, levels = self.network(x, y)
        nll = -self.decode(decoded).log_prob(x)
        kl = torch.stack([level.kl() for level in levels]).sum(0)
        return {"loss": self.objective(nll, kl)} | negative_bound(self.likelihood, x, nll, {"kl": kl})

    def kl_per_level(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return KL(q(z_l | x, z_<l) || p(z_l | z_<l)), (B, L), in nats, from coarse to fine, at one z an image."""
        _, levels = self.network(x, y)
        return torch.stack([level.kl() for level in levels], dim=1)

    # ---------------------------------------------------------------- skipped updates

    def on_train_start(self) -> None:
        """Refuse what would hide the gradients.

        Raises:
            ValueError: If the optimizer is one that is given scaled gradients.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:
            return
        for optimizer in self.trainer.optimizers:
            if getattr(optimizer, "_step_supports_amp_scaling", False):
                raise ValueError(
                    f"optimizer: {type(optimizer).__name__} with fused keeps its gradients scaled under 16-mixed, so "
                    "that none could be skipped; use fused=False, or the precision bf16-mixed"
                )

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Skip an update of a gradient too large or not finite: without gradients, optimizers leave all as it is.

        It comes before the trainer's clipping and after the processes have shared their gradients, so that all of them
        skip the same updates.

        Raises:
            FloatingPointError: If no update was left for a long time.
        """
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters() if p.grad is not None]).item()
        if norm < inf and norm <= (self.skip_above or inf):
            self._skipped_in_a_row = 0
        else:
            optimizer.zero_grad(set_to_none=True)
            self.skipped_updates.add_(1)
            self._skipped_in_a_row += 1
        if self.is_logged_step:
            self.log("skipped_updates", self.skipped_updates.float())
        if self._skipped_in_a_row == PATIENCE:
            raise FloatingPointError(
                f"{PATIENCE} updates in a row were skipped, the last at step {self.trainer.global_step} for a gradient "
                f"of norm {norm:g} (skip_above={self.skip_above}); raise skip_above, or lower the learning rate"
            )

    def check_finite(self, losses: dict[str, Tensor]) -> None:
        """Do not stop at a loss that is not finite: its update is skipped."""

    # ---------------------------------------------------------------- images

    @property
    def sampling(self) -> dict[str, Any]:
        """How :meth:`sample` works; the temperature counts."""
        return super().sampling | {"temperature": self.temperature}

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw z from the prior level by level and return the means of p(x|z), (n, C, H, W) in [-1, 1]."""
        decoded, _ = self.network.descend(n, partial(tempered, temperature=self.temperature), y=y)
        return self.decode(decoded).mean

    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the means of p(x|z) at each posterior's mean, (B, C, H, W) in [-1, 1], for images ``x``."""
        y = check_labels(self, len(x), y)
        with inference(self):
            decoded, _ = self.network.descend(len(x), lambda q: q.mean, self.network.ascend(x.to(self.device)), y)
            return self.decode(decoded).mean.float().clamp(-1, 1)

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int = 100, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return two estimates of -log P of 8-bit images ``x`` (B, C, H, W) in [-1, 1], (B,), in nats.

        See :func:`~lit_generative.vae.bounds.estimate_likelihood`. Likelihoods of binary images define none.
        """
        if not self.likelihood.has_mass:
            return {}
        y = check_labels(self, len(x), y)
        with inference(self, generator):
            return estimate_likelihood(self._begin_draws, x, y, evaluations)

    def _begin_draws(self, x: Tensor, y: Tensor | None) -> Draw:
        features = self.network.ascend(x)

        def draw(n: int) -> tuple[Tensor, Tensor]:
            repeated = [f.repeat(n, 1, 1, 1).contiguous(memory_format=torch.channels_last) for f in features]
            labels = None if y is None else y.repeat(n)
            decoded, levels = self.network.descend(n * len(x), Independent.rsample, repeated, labels)
            log_p = self.likelihood.log_mass(self.decode(decoded), x.repeat(n, 1, 1, 1))
            bound = log_p - torch.stack([level.kl() for level in levels]).sum(0)
            log_w = log_p + torch.stack([level.log_ratio() for level in levels]).sum(0)
            return bound.view(n, -1), log_w.view(n, -1)

        return draw


def tempered(p: Independent, temperature: float) -> Tensor:
    """Draw from a normal with its standard deviation scaled by ``temperature``."""
    return p.mean + temperature * p.stddev * torch.randn_like(p.mean)
