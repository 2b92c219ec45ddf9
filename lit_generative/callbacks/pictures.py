"""When pictures of a training are drawn, and where they go."""

from abc import ABC, abstractmethod
from typing import ClassVar

import lightning as L
from torch import Tensor

from lit_generative.budgets import budget_of
from lit_generative.callbacks.run import logged_step, run_folder
from lit_generative.checks import check_count
from lit_generative.core import GenerativeModule
from lit_generative.loggers import log_picture
from lit_generative.pictures import save_png

__all__ = ["PictureCallback"]


class PictureCallback(L.Callback, ABC):
    """Draws pictures after every validation, with the weights that validation uses, and at the end.

    A subclass gives :meth:`draw`. The pictures are PNG files, named by the images seen, in a folder of the run each,
    and go to every logger that takes images. A dry run (``fast_dev_run``) draws nothing.

    Under a :class:`~lit_generative.callbacks.Budget` that plans evaluations, they are drawn with these.

    Args:
        every_n_epochs: Epochs between pictures.
        seed: The seed of the noise that is drawn from.

    Attributes:
        is_at_every_validation: Whether they are drawn at each validation under a budget.
    """

    is_at_every_validation: ClassVar[bool] = False

    folders: ClassVar[dict[str, str]] = {}  # of pictures whose folder is not called like them

    def __init__(self, every_n_epochs: int = 1, seed: int = 0) -> None:
        check_count("every_n_epochs", every_n_epochs)
        check_count("seed", seed, at_least=0)
        self.every_n_epochs = every_n_epochs
        self.seed = seed
        self._drawn_at = -1

    @abstractmethod
    def draw(self, trainer: L.Trainer, model: GenerativeModule) -> dict[str, Tensor]:
        """Return pictures (C, H, W) in [-1, 1] by name; every process is asked, so that none waits."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Begin anew."""
        self._drawn_at = -1

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Draw if it is time."""
        is_training = trainer.state.fn == "fit" and not trainer.sanity_checking
        if is_training and self._is_due(trainer):
            self._publish(trainer, pl_module)

    def _is_due(self, trainer: L.Trainer) -> bool:
        budget = budget_of(trainer)
        if budget is not None and budget.plans_evaluations:
            return self.is_at_every_validation or budget.evaluates_now
        return (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def on_train_end(self, trainer: L.Trainer, pl_module: GenerativeModule) -> None:  # type: ignore[override]
        """Draw the last pictures, unless the last validation did."""
        if pl_module.images_seen != self._drawn_at:
            self._publish(trainer, pl_module)

    def _publish(self, trainer: L.Trainer, model: GenerativeModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._drawn_at = model.images_seen
        folder = run_folder(trainer)
        for name, picture in self.draw(trainer, model).items():
            if trainer.is_global_zero:
                path = folder / self.folders.get(name, name) / f"images_{model.images_seen:010d}.png"
                save_png(picture, path)
                for logger in trainer.loggers:
                    log_picture(logger, name, path, logged_step(trainer), model.images_seen)
