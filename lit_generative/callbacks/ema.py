"""The exponential moving average of the weights."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lit_generative.callbacks.run import had_ended
from lit_generative.checks import check_range
from lit_generative.contracts import HasLearnedBuffers
from lit_generative.numerics import at_least_single

__all__ = ["EMA", "averaged_tensors"]


class EMA(L.Callback):
    """Keeps average <- d_t average + (1 - d_t) weights, with d_t = min(decay, (1 + t) / (10 + t)) after step t.

    The warm-up d_t (that of TensorFlow's ExponentialMovingAverage) forgets the untrained weights quickly. The running
    statistics of batch normalisations, and the codes of codebooks
    (:class:`~lit_generative.contracts.HasLearnedBuffers`), are averaged with the weights that they belong to.
    Validation, test, prediction and sampling use the average. Checkpoints hold it as the model's weights, which
    ``load_from_checkpoint`` gives, and the trained weights beside it, so that a run resumes exactly. After ``fit`` the
    model keeps the average.

    Args:
        decay: How much of the average is kept a step, in [0, 1).
        warmup: Whether the decay grows from 0.1 as above.
        part: The submodule to average, for instance "generator"; None: the whole model.

    Raises:
        ValueError: If ``decay`` is out of range, the model has no such part, or a ``ModelCheckpoint`` is to save
            weights only, which Lightning does without asking any callback.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True, part: str | None = None) -> None:
        check_range("decay", decay, at_least=0, below=1, hint="0.999 is usual")
        self.decay = decay
        self.warmup = warmup
        self.part = part
        self.steps = 0
        self._tensors: list[Tensor] = []  # weights and running statistics, of the model
        self._average: list[Tensor] = []
        self._raw: list[Tensor] = []  # the trained weights, while the model holds the average
        self._resumed: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Come first among the callbacks: the others are to see the average."""
        if any(isinstance(c, ModelCheckpoint) and c.save_weights_only for c in trainer.checkpoint_callbacks):
            raise ValueError("save_weights_only=True: such a checkpoint leaves the average out; use false with EMA")
        self._find_tensors(pl_module)
        self._tensors, self._average, self._raw = [], [], []
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, callbacks.pop(callbacks.index(self)))

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start from the model's weights, or from the checkpoint's average and trained weights."""
        self._tensors = self._find_tensors(pl_module)
        # in float32 even of half-precision weights, which are too coarse to be moved by a thousandth
        average = [at_least_single(p.detach().clone()) for p in self._tensors]
        self._average = self._resumed.get("average", average)
        self._raw = []
        self.steps = self._resumed.get("steps", trainer.global_step)
        self._copy(self._resumed.get("raw", average))
        self._resumed = {}
        pl_module.weights = "raw"  # type: ignore[assignment]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average after each step of the optimizer (not after each batch of an accumulated one)."""
        if trainer.global_step == self.steps:
            return
        self.steps = trainer.global_step
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.warmup else self.decay
        torch._foreach_lerp_(self._average, [at_least_single(p.detach()) for p in self._tensors], 1 - decay)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the average into the model."""
        if self._average and not self._raw:
            self._swap_in(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the trained weights back."""
        if trainer.state.fn == "fit":
            self._swap_out(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the model."""
        if not self._raw:
            self._swap_in(pl_module)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the average in the model of a run that had nothing left to train."""
        if had_ended(trainer):
            self.on_train_end(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Put the trained weights back if the run broke off in validation."""
        self._swap_out(pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the average as the model's weights and the trained ones in this callback's state."""
        if not self._average:
            return
        names = {id(t): name for name, t in (*pl_module.named_parameters(), *pl_module.named_buffers())}
        raw = [r.clone() for r in self._raw] or [p.detach().clone() for p in self._tensors]
        for p, average in zip(self._tensors, self._average, strict=True):
            checkpoint["state_dict"][names[id(p)]] = average.clone()
        is_finer = any(p.dtype != average.dtype for p, average in zip(self._tensors, self._average, strict=True))
        kept = {"average": [average.clone() for average in self._average]} if is_finer else {}
        checkpoint["callbacks"][self.state_key] = {"steps": self.steps, "raw": raw} | kept
        checkpoint["averaged"] = {"weights": self._name}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what a checkpoint has; it is used when fitting starts."""
        self._resumed = state_dict

    @property
    def _name(self) -> str:
        return f"ema {self.decay}" + (f" of {self.part}" if self.part else "")

    def _find_tensors(self, pl_module: L.LightningModule) -> list[Tensor]:
        try:
            module = pl_module.get_submodule(self.part) if self.part else pl_module
        except AttributeError:
            parts = ", ".join(name for name, _ in pl_module.named_children())
            raise ValueError(f"part={self.part!r}: the model has no such submodule; it has {parts}") from None
        return averaged_tensors(module)

    def _swap_in(self, pl_module: L.LightningModule) -> None:
        self._raw = [p.detach().clone() for p in self._tensors]
        self._copy(self._average)
        pl_module.weights = self._name  # type: ignore[assignment]

    def _swap_out(self, pl_module: L.LightningModule) -> None:
        if self._raw:
            self._copy(self._raw)
            self._raw = []
            pl_module.weights = "raw"  # type: ignore[assignment]

    @torch.no_grad()
    def _copy(self, values: list[Tensor]) -> None:
        for p, value in zip(self._tensors, values, strict=True):
            p.copy_(value)


def averaged_tensors(module: nn.Module) -> list[Tensor]:
    """Return what belongs into an average of weights: trained ones, running statistics, and learned buffers."""
    statistics = [
        tensor
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._NormBase)
        for tensor in (part.running_mean, part.running_var)
        if tensor is not None
    ]
    learned = [
        part.get_buffer(name)  # type: ignore[attr-defined]
        for part in module.modules()
        if isinstance(part, HasLearnedBuffers)
        for name in part.learned_buffers
    ]
    trained = (p for p in module.parameters() if p.requires_grad)  # what is frozen is its own average
    return [*trained, *statistics, *learned]
