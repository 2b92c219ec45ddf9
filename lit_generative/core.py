"""GenerativeModule: the LightningModule that every model is, and all that callbacks and evaluation know of it."""

import functools
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, SaveConfigCallback
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from lit_generative.agreement import check_agreement, check_batch, shape_of
from lit_generative.budgets import advance, budget_of, place, share_of_training
from lit_generative.calls import FEW, NetworkCall, try_calls
from lit_generative.checkpoints import STATE, WholeCheckpoints, check_weights, pack, read_checkpoint, unpack
from lit_generative.contracts import Batch, NamesClasses, as_batch
from lit_generative.description import Described, describe
from lit_generative.finite import broken_weight
from lit_generative.nn.adapters import adapted_names
from lit_generative.nn.conditions import Condition, condition_of, labels_of
from lit_generative.optim import check_optimisation
from lit_generative.optimisation import make_optimizer, make_schedule
from lit_generative.precision import use_half_weights
from lit_generative.resuming import RESUMED, Changes
from lit_generative.savable import check_savable
from lit_generative.training_options import check_adapters, check_training_options

__all__ = ["GenerativeModule"]

COMPILED = "_orig_mod."  # what torch.compile puts into the names of a network's weights

Self = TypeVar("Self", bound="GenerativeModule")


class GenerativeModule(Described, L.LightningModule):
    """A generative model of images.

    A subclass implements :meth:`losses` and :meth:`sample`. Images are float tensors (B, C, H, W) in [-1, 1], labels
    int64 (B,).

    Args:
        num_classes: How many classes the model is conditioned on; None: it takes no labels.
        optimizer: Makes the optimizer from the parameters; a class or ``partial(Adam, lr=1e-3)`` in Python, a
            ``class_path`` with ``init_args`` in YAML. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: Makes the learning rate's schedule from the optimizer. It advances every step, and a
            ``total_steps`` that it takes (``OneCycle``) is filled in from the trainer.
        condition: What else the model is told of each image; ``num_classes`` is short for one of classes.

    Attributes:
        images_seen: Training images seen so far, over all processes: the axis of every plot.
        weights: Which weights the parameters hold, "raw" or for instance "ema 0.999".
        class_names: What the classes are called that a conditional model was trained on; None: not known.
        precision: Lightning's name of the precision trained in; sampling uses it too.
        origin: Whose weights the training began with, by name and digest; None: those of nothing else.
        resumed_at: The ``images_seen`` of the checkpoint that its weights are from; None: a new model.
        loss_units: The units of what :meth:`losses` returns, by name, for reports.
        loss_is_quality: Whether a lower validation loss means better samples, so that a best state is chosen by it.
        family: What reports call models of its kind; "": by the class's name.
    """

    family: ClassVar[str] = ""
    loss_is_quality: ClassVar[bool] = True
    sampler_name: ClassVar[str] = "unspecified"
    loss_units: ClassVar[dict[str, str]] = {}
    network_evaluations: int = 1

    def __init__(
        self,
        num_classes: int | None = None,
        optimizer: OptimizerCallable | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        condition: Condition | None = None,
    ) -> None:
        super().__init__()
        self.condition = condition_of(num_classes, condition)
        self.num_classes = labels_of(self.condition)
        check_optimisation(optimizer, lr_scheduler)
        self.make_optimizer = optimizer or torch.optim.AdamW
        self.make_lr_scheduler = lr_scheduler
        self.images_seen = 0
        self.weights = "raw"
        self.precision = "32-true"
        self.class_names: list[str] | None = None
        self._looked_at: set[str] = set()
        self.noise_seed: int | None = None
        self.origin: dict[str, Any] | None = None
        self._has_tried_networks = False
        self.resumed_at: int | None = None
        self._saved: dict[str, Any] | None = None  # of a checkpoint, what a run that goes on from it has to know
        self._changes: Changes | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let an overridden ``training_step`` count its images, too: noise is seeded by them."""
        super().__init_subclass__(**kwargs)
        if "training_step" in cls.__dict__:
            cls.training_step = _counted(cls.training_step)  # type: ignore[method-assign]

    # ---------------------------------------------------------------- to be implemented by each family

    def losses(self, x: Tensor, y: Tensor | None = None) -> dict[str, Tensor]:
        """Return what is to be minimised under ``loss``, and what else is worth logging.

        Args:
            x: Images (B, C, H, W) in [-1, 1].
            y: Labels (B,), given if the model has ``num_classes``.

        Returns:
            Tensors (B,), per image, in nats where the family defines them, summed over dimensions.
        """
        raise TypeError(f"{type(self).__name__} does not implement losses(x, y)")

    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw new images; implementations wear the decorator :func:`sampling_mode`.

        Args:
            n: How many.
            y: Labels (n,), needed if the model has ``num_classes``.
            generator: The source of all randomness; None: torch's global one.

        Returns:
            Images (n, C, H, W) in [-1, 1].
        """
        raise TypeError(f"{type(self).__name__} does not implement sample(n, y, *, generator)")

    def likelihoods(
        self, x: Tensor, y: Tensor | None = None, *, evaluations: int, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Estimate -log P(x) in nats, by name, such as "bound"; {} here: a family may define none.

        P is the probability of an image among all 8-bit images, not a density, so that -log2 P / (C H W) are bits/dim
        and mean the same for every model. A density p of x in [-1, 1] gives it if integrated over the pixels' bins,
        which are 2/255 wide: log P is close to log p + C H W log(2/255).

        Args:
            x: Images (B, C, H, W) in [-1, 1], of 256 levels.
            y: Labels (B,), given if the model has ``num_classes``.
            evaluations: About how many times an estimate may ask the network about an image.
            generator: The source of all randomness; None: torch's global one.

        Returns:
            Tensors (B,), per image, summed over dimensions.
        """
        return {}

    @property
    def sampling(self) -> dict[str, Any]:
        """How :meth:`sample` works, for the protocol stamp of a number."""
        return {"sampler": self.sampler_name, "evaluations": self.network_evaluations, "precision": self.precision}

    def network_calls(self, x: Tensor, y: Tensor | None = None) -> list[NetworkCall]:
        """Return how the networks are called, for a look at those of a user's own before the first step.

        A call that a subclass may have changed, by overriding a hook, is left out.

        Args:
            x: A few images (B, C, H, W) in [-1, 1].
            y: Labels (B,), given if the model has ``num_classes``.
        """
        return []

    # ---------------------------------------------------------------- the steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of a batch; the images count towards ``images_seen``."""
        losses = self.losses(*self.unpack(batch))
        self.count_images(batch)
        if self.is_logged_step:
            self.check_finite(losses)
            self.log_training(losses)
        return losses["loss"].mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``val/…``."""
        self.log_losses("val", self.losses(*self.unpack(batch)))

    def on_validation_epoch_end(self) -> None:
        """Log the place of ``val/…`` or ``test/…`` on the axis of all plots."""
        self.log("images_seen", float(self.images_seen), reduce_fx="max", sync_dist=True)

    on_test_epoch_end = on_validation_epoch_end

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log ``test/…``."""
        self.log_losses("test", self.losses(*self.unpack(batch)))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Draw as many samples as the batch has images, of its labels if the model is conditional."""
        x, y = self.unpack(batch)
        return self.sample(len(x), y)

    def unpack(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Return the images of what a loader gives and, for a conditional model, the labels or what else it is told.

        Raises:
            ValueError: If there are no images, or not what a conditional model is told.
        """
        batch = as_batch(batch)
        return batch["image"], None if self.condition is None else self.condition.of(batch)

    @property
    def is_logged_step(self) -> bool:
        """Whether the present training step is logged: a log costs 0.4 ms, so it is every ``log_every_n_steps``."""
        return (self.trainer.global_step + 1) % max(self.trainer.log_every_n_steps, 1) == 0  # type: ignore[attr-defined]

    def count_images(self, batch: Batch) -> None:
        """Add the images of a training batch, those of the other processes too, to ``images_seen``."""
        self.images_seen += len(as_batch(batch)["image"]) * self.trainer.world_size

    def log_training(self, losses: dict[str, Tensor]) -> None:
        """Log ``train/…`` and the place on the axis of all plots."""
        self.log_losses("train", losses)
        self.log("images_seen", float(self.images_seen), prog_bar=True, logger=True)

    def log_losses(self, stage: str, losses: dict[str, Tensor]) -> None:
        """Log the mean of each loss (B,) as ``stage/name``."""
        metrics = {f"{stage}/{name}": value.detach().mean() for name, value in losses.items()}
        is_training = stage == "train"
        self.log_dict(
            metrics,
            on_step=is_training,
            on_epoch=not is_training,
            batch_size=len(next(iter(losses.values()))),
            sync_dist=not is_training,
        )

    def check_finite(self, losses: dict[str, Tensor]) -> None:
        """Stop the run if a loss (of a name that ends in "loss") is not finite.

        Raises:
            FloatingPointError: It names the first such loss, the step and the last checkpoint.
        """
        means = {name: float(value.detach().mean()) for name, value in losses.items()}
        broken = [name for name, mean in means.items() if name.endswith("loss") and not isfinite(mean)]
        if broken:
            values = ", ".join(f"{name} {mean:g}" for name, mean in means.items())
            raise self._divergence(f"the {broken[0].replace('_', ' ')}", f" ({values})")

    def _divergence(self, what: str, values: str = "") -> FloatingPointError:
        callbacks = [c for c in self.trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
        # the best path is set before that checkpoint is saved
        paths = {path for c in callbacks for path in (c.best_model_path, c._last_checkpoint_saved)}
        saved = [path for path in map(Path, paths) if path.is_file()]
        last = f"The last checkpoint is {max(saved, key=lambda path: path.stat().st_mtime_ns)}. " if saved else ""
        return FloatingPointError(
            f"{what} is not finite at step {self.trainer.global_step}{values}. "
            f"{last}A lower learning rate or gradient clipping may help."
        )

    # ---------------------------------------------------------------- optimisation

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer and, if there is one, the learning rate's schedule."""
        optimizer = make_optimizer(self.make_optimizer, self.parameters(), self.trainer)
        if self.make_lr_scheduler is None:
            return optimizer
        schedule = make_schedule(self.make_lr_scheduler, optimizer, self.trainer, self.goes_on_from)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Let a schedule advance: by a step, or to the share of a budget of minutes or images that is over."""
        budget = budget_of(self.trainer)
        if budget is not None and any(scheduler is other for other in budget.schedules):
            advance(scheduler, place(self.trainer))
        else:
            super().lr_scheduler_step(scheduler, metric)

    @property
    def share_of_training(self) -> float | None:
        """The share of the training that is over, in [0, 1]; 1 outside of one, None where its length is not known."""
        is_training = self._trainer is not None and self._trainer.state.fn == "fit"
        return share_of_training(self.trainer) if is_training else 1.0

    @property
    def goes_on_from(self) -> dict[str, Any] | None:
        """What is known of the checkpoint that the run goes on from; None of a run that takes over weights at most."""
        return None if self.trainer.ckpt_path is None else self._saved

    def configure_callbacks(self) -> list[L.Callback]:
        """Check the trainer's options; this is the first hook that it calls."""
        if self.trainer.state.fn == "fit":
            check_training_options(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        """Compare the model with its data, in every stage, and see that checkpoints can hold it."""
        use_half_weights(self.trainer)
        self._looked_at.clear()
        if stage == "fit" and self.trainer.checkpoint_callbacks:
            check_savable(self)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if data is not None:
            check_agreement(self, data)

    def look_at(self, batch: Any, split: str) -> None:
        """Check a batch, the first of its split ("training", "validation", "test" or "prediction")."""
        x, y = self.unpack(batch)
        check_batch(as_batch(batch), split, shape_of(self), self.num_classes)
        if self.condition is not None and self.num_classes is None:
            self.condition.check(y, len(x))

    def _look_once(self, batch: Any, split: str) -> None:
        if split not in self._looked_at:
            self._looked_at.add(split)
            self.look_at(batch, split)

    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Look at the first batch, and try the networks if Lightning validates before a training."""
        self._look_once(batch, "validation")
        if self.trainer.sanity_checking:
            self._try_networks(batch)

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Look at the first batch."""
        self._look_once(batch, "test")

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Look at the first batch."""
        self._look_once(batch, "prediction")

    def on_fit_start(self) -> None:
        """Note the classes' names, precision and seed, and tell loggers what a CLI has not told."""
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = WholeCheckpoints()
        if (before := self.goes_on_from) is not None:
            saved = before["lit_generative"]["model"]
            schedules, steps = before["lr_schedulers"], before["global_step"]
            self._changes = Changes(self.trainer, saved, describe(self), schedules, steps)
        check_adapters(self)
        self._has_tried_networks = False
        self.precision = str(self.trainer.precision)
        self.weights = "raw"
        if self.noise_seed is None:
            self.noise_seed = torch.initial_seed()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.num_classes is not None and isinstance(data, NamesClasses):
            self.class_names = [str(name) for name in data.class_names or ()] or None
        if not any(isinstance(callback, SaveConfigCallback) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            for logger in self.trainer.loggers:
                logger.log_hyperparams({"model": describe(self), "data": describe(data)})

    def on_train_start(self) -> None:
        """Follow what the configuration of a resumed run has changed: optimizers and schedules are restored now."""
        if self._changes is not None:
            self._changes.follow()
        self._saved = self._changes = None

    def _try_networks(self, batch: Any) -> None:
        """Try how the networks are called, once; where they are cut up among devices, that is left alone."""
        if self._has_tried_networks or not isinstance(self.trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            return
        self._has_tried_networks = True
        x, y = self.unpack(batch)
        with self.trainer.precision_plugin.forward_context():
            try_calls(self, self.network_calls(x[:FEW], None if y is None else y[:FEW]))

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step's noise by what was seen so far, so that a resumed run draws what an unbroken one would."""
        self._look_once(batch, "training")
        self._try_networks(batch)
        # a tuple of integers has the same hash in every process
        torch.manual_seed(hash((self.noise_seed, self.images_seen, self.global_rank)) % 2**63)

    # ---------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the class and its arguments, for :meth:`load_from_checkpoint`, and the loggers' runs, as plain data.

        Raises:
            FloatingPointError: If a weight is not finite, which a loss shows one step later: do not save it as good.
        """
        if name := broken_weight(self):
            raise self._divergence(name)
        checkpoint["state_dict"] = {key.replace(COMPILED, ""): v for key, v in checkpoint["state_dict"].items()}
        pack(checkpoint, self, self.trainer.datamodule, adapted_names(self))  # type: ignore[attr-defined]
        runs = {type(logger).__name__: logger.version for logger in self.trainer.loggers}
        checkpoint["lit_generative"]["runs"] = {name: run for name, run in runs.items() if isinstance(run, str)}
        for logger in self.trainer.loggers:
            logger.save()  # a run that goes on from here has to find there what came before

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the weights fit, and restore the counters.

        Raises:
            ValueError: If the checkpoint's weights are those of another network.
        """
        own = {key.replace(COMPILED, ""): key for key in self.state_dict()}  # some networks may be compiled here
        checkpoint["state_dict"] = {own.get(key, key): v for key, v in checkpoint["state_dict"].items()}
        if self.strict_loading:
            check_weights(self, checkpoint["state_dict"])
        saved = checkpoint.get("lit_generative", {})
        if checkpoint.keys() >= {*RESUMED, "optimizer_states"}:  # else it holds weights only
            self._saved = {key: checkpoint[key] for key in RESUMED}
        state = saved.get("state", {})
        for name in STATE:
            setattr(self, name, state.get(name, getattr(self, name)))
        self.resumed_at = self.images_seen

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls: type[Self], checkpoint_path: str | Path, map_location: Any = None, strict: bool = True, **overrides: Any
    ) -> Self:
        """Rebuild the very model that a checkpoint holds: its class, its networks and their weights.

        Nothing in the file is executed: it is read with ``weights_only=True``, and only classes of modules that the
        caller has imported are built from it.

        Args:
            checkpoint_path: A checkpoint of this class or of a subclass.
            map_location: As in ``torch.load``.
            strict: Whether the weights must match the networks exactly.
            **overrides: Constructor arguments to be used instead of those in the file; a network put together by
                hand must be passed.

        Raises:
            FileNotFoundError: If there is no such file.
            ImportError: If the model's class, or a network's, is not imported.
            ValueError: If the file is damaged, holds code, is not of this package or is of another class, or if a
                network must be passed in.
        """
        checkpoint = read_checkpoint(checkpoint_path, map_location)
        model = unpack(checkpoint, cls, overrides, source=str(checkpoint_path))
        model.strict_loading = strict
        model.on_load_checkpoint(checkpoint)
        model.load_state_dict(checkpoint["state_dict"], strict=strict)
        return model


def _counted(step: Callable[..., Any]) -> Callable[..., Any]:
    """Count the images of a training step that has not counted them itself."""

    @functools.wraps(step)
    def training_step(self: GenerativeModule, batch: Any, *args: Any, **kwargs: Any) -> Any:
        before = self.images_seen
        result = step(self, batch, *args, **kwargs)
        if self.images_seen == before:
            self.count_images(batch)
        return result

    return training_step
