"""Evaluation of a model's samples while it trains, at the end, and in ``test``."""

import copy
from collections.abc import Callable
from math import inf, isinf
from typing import Any, Literal, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_generative.budgets import TrainingBudget, budget_of
from lit_generative.callbacks.best import keep_no_best
from lit_generative.callbacks.run import append_record, had_ended, log_scalars, run_data, run_folder
from lit_generative.callbacks.table import print_table
from lit_generative.checks import check_count
from lit_generative.contracts import ImageData
from lit_generative.core import GenerativeModule
from lit_generative.evaluation import Evaluation, Evaluator
from lit_generative.evaluation.copies import copied_share, copied_share_of_real, quality_without_copies
from lit_generative.evaluation.stamp import is_of_points
from lit_generative.evaluation.too_few import TooFewImagesError, too_few

__all__ = ["Evaluate", "EvaluationListener"]

_LOOKED_AT = 1000  # samples among which copies are looked for
_Compared = Literal["val", "test"]  # images that models are not trained on


@runtime_checkable
class EvaluationListener(Protocol):
    """A callback that has something to add to an evaluation."""

    def on_evaluation(self, trainer: L.Trainer, model: GenerativeModule, evaluation: Evaluation) -> dict[str, Any]:
        """Return what to add to the record in ``evaluation.json``; every process is asked.

        A list of sentences under the key ``lines`` is not put there but printed below the table.
        """


@runtime_checkable
class _Monitors(Protocol):
    """A callback that looks at what is logged under a name, as Lightning's checkpoints and early stopping do."""

    monitor: str | None


class Evaluate(L.Callback):
    """Draws samples, compares them with real images, and reports: logged, printed, and in ``evaluation.json``.

    It runs at the end of ``fit``, and in between if asked, on validation images and logged as ``evaluation/…``: a
    checkpoint or an option that is chosen by what it reaches on the test images would make their number too good. In
    ``test`` it runs on the evaluator's split, the test images, and is logged as ``test/…``. The file keeps all
    evaluations of a run, each with its protocol.

    A ``ModelCheckpoint`` may monitor ``evaluation/frechet_distance`` (which Inception's FID is logged as, too). It then
    needs the number at every validation from the first on, so that the first one evaluates in any case. Where quality
    cannot be measured there is no best state: the checkpoint keeps none, or the latest one where nothing else does.

    Under a :class:`~lit_generative.callbacks.Budget` that plans evaluations, these take the place of ``every_n_…``.
    Before the first of them, what a checkpoint monitors is infinitely bad.

    Of a training set of fewer than ``copies_below`` images, samples are also compared with the training images, as they
    are and mirrored: ``evaluation/memorised`` is the share of copies. ``evaluation/quality_without_copies`` is the
    Fréchet distance made larger by them, infinite where copies are a tenth more than chance explains
    (:mod:`lit_generative.evaluation.copies`); of a larger set it is the Fréchet distance. The checkpoint of small sets
    should monitor it. Of states that are all infinite it keeps the first.

    Args:
        evaluator: The protocol.
        every_n_epochs: Epochs between evaluations during training; None: only at the end.
        every_n_images: Training images between evaluations (at the next validation); None: only at the end.
        at_end: Whether ``fit`` ends with an evaluation.
        split_at_end: On which images: ``val``, or ``test`` if nothing is chosen any more.
        copies_below: Of how many training images on nobody looks for copies; 0: never.
    """

    _data: ImageData  # known after ``setup``
    _latest: tuple[int, Evaluation, list[str]] | None = None  # after so many images, with the listeners' sentences

    def __init__(
        self,
        evaluator: Evaluator,
        every_n_epochs: int | None = None,
        every_n_images: int | None = None,
        at_end: bool = True,
        split_at_end: _Compared = "val",
        copies_below: int = 20_000,
    ) -> None:
        for name, value in {"every_n_epochs": every_n_epochs, "every_n_images": every_n_images}.items():
            check_count(name, value, hint="null is an evaluation at the end only")
        self.evaluator = evaluator
        self.every_n_epochs = every_n_epochs
        self.every_n_images = every_n_images
        self.at_end = at_end
        if split_at_end not in ("val", "test"):
            raise ValueError(f"split_at_end={split_at_end!r}: it must be val or test")
        self.split_at_end: _Compared = split_at_end
        check_count("copies_below", copies_below, at_least=0, hint="0 looks for none")
        self.copies_below = copies_below
        self._copied_by_chance: dict[str, float] = {}
        self._unavailable = ""
        self._evaluators: dict[str, Evaluator] = {}
        self._evaluated_at = 0
        self._monitored: list[str] = []
        self._unmeasured: dict[str, float] = {}  # what a checkpoint is told before the first planned evaluation

    @property
    def measures_quality(self) -> bool:
        """Whether there is an extractor to measure the samples with (known after ``setup``)."""
        return not self._unavailable

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Load the extractor now: a missing one is to be known before hours of training.

        An extractor that was asked for and is missing is an error. With ``auto``, or with too few images to compare
        with, the run goes on and says that the samples' quality is not measured. Nor is it in a dry run
        (``fast_dev_run``), where nothing is loaded.
        """
        if stage not in ("fit", "test"):
            return
        self._unavailable = "this is a dry run (fast_dev_run)" if trainer.fast_dev_run else ""  # type: ignore[attr-defined]
        if self._unavailable:
            return
        self._data = run_data(trainer, self)
        self._evaluators = {}
        try:
            for split in self._splits(trainer, stage):
                self._on(split).check(self._data)
        except FileNotFoundError as error:
            if self.evaluator.extractor != "auto":
                raise
            self._unavailable = str(error)
        self._unavailable = self._unavailable or too_few(self._data, ["train", *sorted(self._splits(trainer, stage))])
        if self._unavailable and trainer.is_global_zero:
            print(f"The quality of samples will not be measured: {self._unavailable}")
        if stage == "fit":
            self._prepare_monitors(trainer)
            self._drop_misleading(trainer, pl_module)

    def _is_periodic(self, trainer: L.Trainer) -> bool:
        """Whether there are evaluations before the end."""
        return bool(self.every_n_epochs or self.every_n_images) or _planned(trainer) is not None

    def _splits(self, trainer: L.Trainer, stage: str) -> set[_Compared]:
        """Return which images are compared with in a stage."""
        if stage == "test":
            return {self.evaluator.split}
        in_between: set[_Compared] = {"val"} if self._is_periodic(trainer) else set()
        return in_between | ({self.split_at_end} if self.at_end else set())

    def _on(self, split: _Compared) -> Evaluator:
        """Return the evaluator for a split, always the same, which keeps its extractor."""
        if split not in self._evaluators:
            self._evaluators[split] = copy.copy(self.evaluator)
            self._evaluators[split].split = split
        return self._evaluators[split]

    def _prepare_monitors(self, trainer: L.Trainer) -> None:
        """See to it that what a callback monitors is there when it looks: Lightning's raise an error if not."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        monitors = [c for c in callbacks if isinstance(c, _Monitors) and (c.monitor or "").startswith("evaluation/")]
        if self._unavailable:
            checkpoints = [callback for callback in monitors if isinstance(callback, ModelCheckpoint)]
            keep_no_best(trainer, checkpoints, "evaluation/… cannot be monitored")
        elif monitors and not self._is_periodic(trainer):
            raise ValueError(
                f"{type(monitors[0]).__name__} monitors {monitors[0].monitor}, but evaluations are at the end only; "
                "set evaluate.every_n_epochs or evaluate.every_n_images"
            )
        self._unmeasured = {}
        if _planned(trainer) is not None:
            checkpoints = [callback for callback in monitors if isinstance(callback, ModelCheckpoint)]
            self._unmeasured = {str(c.monitor): inf if c.mode == "min" else -inf for c in checkpoints}
            monitors = [callback for callback in monitors if callback not in checkpoints]
        self._monitored = [callback.monitor for callback in monitors if callback.monitor]

    def _drop_misleading(self, trainer: L.Trainer, model: Any) -> None:
        """Let nothing be called best by a loss that says who is ahead in a game, not how good samples are."""
        if not model.loss_is_quality:
            found = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
            misled = [checkpoint for checkpoint in found if checkpoint.monitor == "val/loss"]
            keep_no_best(trainer, misled, f"val/loss of a {type(model).__name__} is no measure of quality")

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate if it is time."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or self._unavailable:
            return
        if self._is_due(trainer, pl_module):
            self._evaluated_at = pl_module.images_seen
            evaluation, lines = self._evaluate(self._on("val"), trainer, pl_module, _losses(trainer, "val/"))
            self._latest = pl_module.images_seen, evaluation, lines
            pl_module.log_dict(_scalars("evaluation", evaluation))
        elif unmeasured := {n: v for n, v in self._unmeasured.items() if n not in trainer.callback_metrics}:
            pl_module.log_dict(unmeasured)

    def _is_due(self, trainer: L.Trainer, model: GenerativeModule) -> bool:
        is_first = any(name not in trainer.callback_metrics for name in self._monitored)
        if (budget := _planned(trainer)) is not None:
            return budget.evaluates_now or is_first
        epochs, images = trainer.current_epoch + 1, model.images_seen - self._evaluated_at
        return (
            is_first
            or bool(self.every_n_epochs and epochs % self.every_n_epochs == 0)
            or bool(self.every_n_images and images >= self.every_n_images)
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate the trained model."""
        if self.at_end:
            self._report(trainer, pl_module, "val/", self.split_at_end)

    def on_fit_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate a run that had ended before, perhaps in the middle of its last evaluation."""
        if had_ended(trainer) and self.at_end:
            if trainer.is_global_zero:
                print(
                    f"The run had ended, after {pl_module.images_seen:,} images: nothing is left to train, and it is "
                    "evaluated once more. A higher trainer.max_epochs or trainer.max_steps, or more minutes or images, "
                    "go on."
                )
            self._report(trainer, pl_module, "val/", self.split_at_end)

    def on_test_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate the tested model."""
        self._report(trainer, pl_module, "test/", self.evaluator.split)

    def on_validation_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Print the losses of ``validate``."""
        if trainer.state.fn == "validate" and trainer.is_global_zero:
            print_table("validation", _losses(trainer, "val/"), None, units=pl_module.loss_units)

    def state_dict(self) -> dict[str, Any]:
        """Return when the latest evaluation was, if there was one, so that a resumed run has the next one in time."""
        return {"evaluated_at": self._evaluated_at} if self._evaluated_at else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._evaluated_at = state_dict["evaluated_at"]

    def _report(self, trainer: L.Trainer, model: GenerativeModule, prefix: str, split: _Compared) -> None:
        losses = _losses(trainer, prefix)
        evaluation: Evaluation | None = None
        lines: list[str] = []
        if self.measures_quality:
            try:
                if split == "val" and self._latest is not None and self._latest[0] == model.images_seen:
                    _, evaluation, lines = self._latest  # the validation after the last step was evaluated a moment ago
                else:
                    evaluation, lines = self._evaluate(self._on(split), trainer, model, losses)
                    log_scalars(trainer, model, _scalars("evaluation" if split == "val" else split, evaluation))
            except TooFewImagesError as error:  # of a stream, whose length nobody knew
                self._unavailable = str(error)
        if trainer.is_global_zero:
            title = f"{type(model).__name__} after {model.images_seen:,} images"
            print_table(title, losses, evaluation, self._unavailable, lines, model.loss_units)

    def _evaluate(
        self, evaluator: Evaluator, trainer: L.Trainer, model: GenerativeModule, losses: dict[str, float]
    ) -> tuple[Evaluation, list[str]]:
        """Return the evaluation, which is written down, and what the listeners want to be printed below it."""
        samples: list[Tensor] = []
        evaluation = evaluator.evaluate(model, self._data, on_samples=_few_of(samples))
        self._look_for_copies(evaluation, self._joined(samples, model.device), evaluator.split)
        additions: dict[str, Any] = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EvaluationListener):
                added = callback.on_evaluation(trainer, model, evaluation)
                additions |= added | {"lines": additions.get("lines", []) + added.get("lines", [])}
        lines = additions.pop("lines", [])
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            record = {"images_seen": model.images_seen, "step": trainer.global_step, "losses": losses}
            append_record(folder / "evaluation.json", record | _in_json(evaluation) | additions)
            for logger in trainer.loggers:
                logger.log_hyperparams({"evaluation_protocol": evaluation.protocol})
        return evaluation, lines

    def _joined(self, samples: list[Tensor], device: torch.device) -> Tensor:
        """Return this process's samples as one tensor, of which there may be none."""
        return torch.cat(samples) if samples else torch.empty(0, *self._data.image_shape, device=device)

    def _look_for_copies(self, evaluation: Evaluation, samples: Tensor, split: _Compared) -> None:
        """Add the share of copies, and the quality without them."""
        distance = evaluation.metrics.get("fid", evaluation.metrics.get("frechet_distance"))
        if distance is None or is_of_points(self._data):
            return
        found = {"quality_without_copies": distance}
        total = self._data.num_images("train")
        if total is not None and total < self.copies_below:
            with isolate_rng():
                if split not in self._copied_by_chance:
                    self._copied_by_chance[split] = copied_share_of_real(self._data, split)
                floor, memorised = self._copied_by_chance[split], copied_share(samples, self._data)
            evaluation.protocol["floor"]["memorised"] = floor
            found = {
                "memorised": memorised,
                "quality_without_copies": quality_without_copies(distance, memorised, floor),
            }
        evaluation.metrics.update(found)


def _few_of(samples: list[Tensor]) -> Callable[[Tensor, Tensor], None]:
    """Return what keeps a process's first images of an evaluation."""

    def keep(images: Tensor, _: Tensor) -> None:
        if sum(map(len, samples)) < _LOOKED_AT:
            samples.append(images)

    return keep


def _in_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but infinite metrics: JSON has no such number."""
    found = evaluation.to_dict()
    return found | {"metrics": {name: value for name, value in found["metrics"].items() if not isinf(value)}}


def _planned(trainer: L.Trainer) -> TrainingBudget | None:
    """Return the budget that says when samples are evaluated; None: the options here do."""
    budget = budget_of(trainer)
    return budget if budget is not None and budget.plans_evaluations else None


def _losses(trainer: L.Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}


def _scalars(prefix: str, evaluation: Evaluation) -> dict[str, float]:
    """Metrics by name, FID under the name that the Fréchet distance has in all features as well."""
    metrics = evaluation.metrics
    everywhere = {"frechet_distance": metrics["fid"]} if "fid" in metrics else {}
    return {f"{prefix}/{name}": float(value) for name, value in (everywhere | metrics).items()}
