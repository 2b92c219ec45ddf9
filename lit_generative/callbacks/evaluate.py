"""Evaluation of a model's samples while it trains, at the end, and in ``test``."""

import copy
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_generative.callbacks.best import keep_no_best
from lit_generative.callbacks.run import append_record, had_ended, log_scalars, run_data, run_folder
from lit_generative.callbacks.table import print_table
from lit_generative.checks import check_count
from lit_generative.contracts import ImageData, Split
from lit_generative.core import GenerativeModule
from lit_generative.evaluation import Evaluation, Evaluator
from lit_generative.evaluation.too_few import TooFewImagesError, too_few

__all__ = ["Evaluate", "EvaluationListener"]


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

    It runs at the end of ``fit`` and in ``test``, on the evaluator's split and logged as ``test/…``. In between it runs
    if asked, on validation images and logged as ``evaluation/…``: a checkpoint that is chosen by what it reaches on the
    test images would make their number too good. The file keeps all evaluations of a run, each with its protocol.

    A ``ModelCheckpoint`` may monitor ``evaluation/frechet_distance`` (which Inception's FID is logged as, too). It then
    needs the number at every validation from the first on, so that the first one evaluates in any case. Where quality
    cannot be measured there is no best state: the checkpoint keeps none, or the latest one where nothing else does.

    Args:
        evaluator: The protocol.
        every_n_epochs: Epochs between evaluations during training; None: only at the end.
        every_n_images: Training images between evaluations (at the next validation); None: only at the end.
        at_end: Whether ``fit`` ends with an evaluation.
    """

    _data: ImageData  # known after ``setup``

    def __init__(
        self,
        evaluator: Evaluator,
        every_n_epochs: int | None = None,
        every_n_images: int | None = None,
        at_end: bool = True,
    ) -> None:
        for name, value in {"every_n_epochs": every_n_epochs, "every_n_images": every_n_images}.items():
            check_count(name, value, hint="null is an evaluation at the end only")
        self.evaluator = evaluator
        self.every_n_epochs = every_n_epochs
        self.every_n_images = every_n_images
        self.at_end = at_end
        self._unavailable = ""
        self._evaluated_at = 0
        self._monitored: list[str] = []

    @property
    def measures_quality(self) -> bool:
        """Whether there is an extractor to measure the samples with (known after ``setup``)."""
        return not self._unavailable

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Load the extractor now: a missing one is to be known before hours of training.

        An extractor that was asked for and is missing is an error. With ``auto`` the run goes on and says that the
        samples' quality is not measured. Nor is it in a dry run (``fast_dev_run``), where nothing is loaded.
        """
        if stage not in ("fit", "test"):
            return
        self._unavailable = "this is a dry run (fast_dev_run)" if trainer.fast_dev_run else ""  # type: ignore[attr-defined]
        if self._unavailable:
            return
        self._data = run_data(trainer, self)
        try:
            self.evaluator.check(self._data)
        except FileNotFoundError as error:
            if self.evaluator.extractor != "auto":
                raise
            self._unavailable = str(error)
        self._unavailable = self._unavailable or too_few(self._data, self._splits(stage))
        if self._unavailable and trainer.is_global_zero:
            print(f"The quality of samples will not be measured: {self._unavailable}")
        if stage == "fit":
            self._prepare_monitors(trainer)
            self._drop_misleading(trainer, pl_module)
        if stage == "fit" and (self.every_n_epochs or self.every_n_images):
            self._data.num_images("val")  # of a user's data module that has none, it says so

    def _splits(self, stage: str) -> list[Split]:
        """Return the splits that evaluations compare with; samples are drawn for nothing if one is too small."""
        at_times: list[Split] = ["val"] if stage == "fit" and (self.every_n_epochs or self.every_n_images) else []
        return ["train", *at_times, *([self.evaluator.split] if stage == "test" or self.at_end else [])]

    def _prepare_monitors(self, trainer: L.Trainer) -> None:
        """See to it that what a callback monitors is there when it looks: Lightning's raise an error if not."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        monitors = [c for c in callbacks if isinstance(c, _Monitors) and (c.monitor or "").startswith("evaluation/")]
        if self._unavailable:
            checkpoints = [callback for callback in monitors if isinstance(callback, ModelCheckpoint)]
            keep_no_best(trainer, checkpoints, "evaluation/… cannot be monitored")
        elif monitors and not (self.every_n_epochs or self.every_n_images):
            raise ValueError(
                f"{type(monitors[0]).__name__} monitors {monitors[0].monitor}, but evaluations are at the end only; "
                "set evaluate.every_n_epochs or evaluate.every_n_images"
            )
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
            evaluator = copy.copy(self.evaluator)
            evaluator.split = "val"
            self._evaluated_at = pl_module.images_seen
            evaluation, _ = self._evaluate(evaluator, trainer, pl_module, _losses(trainer, "val/"))
            pl_module.log_dict(_scalars("evaluation", evaluation))

    def _is_due(self, trainer: L.Trainer, model: GenerativeModule) -> bool:
        epochs, images = trainer.current_epoch + 1, model.images_seen - self._evaluated_at
        return (
            bool(self.every_n_epochs and epochs % self.every_n_epochs == 0)
            or bool(self.every_n_images and images >= self.every_n_images)
            or any(name not in trainer.callback_metrics for name in self._monitored)
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate the trained model."""
        if self.at_end:
            self._report(trainer, pl_module, "val/")

    def on_fit_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate a run that had ended before, perhaps in the middle of its last evaluation."""
        if had_ended(trainer) and self.at_end:
            if trainer.is_global_zero:
                print(
                    f"The run had ended, after {pl_module.images_seen:,} images: nothing is left to train, and it is "
                    "evaluated once more. A higher trainer.max_epochs or trainer.max_steps goes on."
                )
            self._report(trainer, pl_module, "val/")

    def on_test_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Evaluate the tested model."""
        self._report(trainer, pl_module, "test/")

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

    def _report(self, trainer: L.Trainer, model: GenerativeModule, prefix: str) -> None:
        losses = _losses(trainer, prefix)
        evaluation: Evaluation | None = None
        lines: list[str] = []
        if self.measures_quality:
            try:
                evaluation, lines = self._evaluate(self.evaluator, trainer, model, losses)
                log_scalars(trainer, model, _scalars(self.evaluator.split, evaluation))
            except TooFewImagesError as error:  # of a stream, whose length nobody knew
                self._unavailable = str(error)
        if trainer.is_global_zero:
            title = f"{type(model).__name__} after {model.images_seen:,} images"
            print_table(title, losses, evaluation, self._unavailable, lines, model.loss_units)

    def _evaluate(
        self, evaluator: Evaluator, trainer: L.Trainer, model: GenerativeModule, losses: dict[str, float]
    ) -> tuple[Evaluation, list[str]]:
        """Return the evaluation, which is written down, and what the listeners want to be printed below it."""
        evaluation = evaluator.evaluate(model, self._data)
        additions: dict[str, Any] = {}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EvaluationListener):
                added = callback.on_evaluation(trainer, model, evaluation)
                additions |= added | {"lines": additions.get("lines", []) + added.get("lines", [])}
        lines = additions.pop("lines", [])
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            record = {"images_seen": model.images_seen, "step": trainer.global_step, "losses": losses}
            append_record(folder / "evaluation.json", record | evaluation.to_dict() | additions)
            for logger in trainer.loggers:
                logger.log_hyperparams({"evaluation_protocol": evaluation.protocol})
        return evaluation, lines


def _losses(trainer: L.Trainer, prefix: str) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(prefix)}


def _scalars(prefix: str, evaluation: Evaluation) -> dict[str, float]:
    """Metrics by name, FID under the name that the Fréchet distance has in all features as well."""
    metrics = evaluation.metrics
    everywhere = {"frechet_distance": metrics["fid"]} if "fid" in metrics else {}
    return {f"{prefix}/{name}": float(value) for name, value in (everywhere | metrics).items()}
