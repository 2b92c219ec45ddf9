"""Loggers of runs, besides Lightning's own."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import lightning.pytorch.loggers
import numpy as np
import wandb
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from PIL import Image

__all__ = ["WandbLogger", "log_plot", "log_table"]


def log_table(logger: Logger, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Give a table to a logger that takes tables, or texts; others are left alone.

    Args:
        logger: ``WandbLogger`` makes a ``wandb.Table`` of it, ``TensorBoardLogger`` a text.
        name: What the table is called.
        columns: Their headings.
        rows: A cell for each column.
    """
    if hasattr(logger, "log_table"):
        logger.log_table(key=name, columns=list(columns), data=[list(row) for row in rows])
    elif (add_text := getattr(getattr(logger, "experiment", None), "add_text", None)) is not None:
        lines = [columns, ["---"] * len(columns), *rows]
        add_text(name, "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines))


def log_plot(logger: Logger, name: str, path: Path) -> None:
    """Give a PNG file to a logger that takes images; others are left alone."""
    if hasattr(logger, "log_image"):
        logger.log_image(key=name, images=[str(path)])
    elif (add_image := getattr(getattr(logger, "experiment", None), "add_image", None)) is not None:
        with Image.open(path) as image:
            add_image(name, np.asarray(image.convert("RGB")), dataformats="HWC")


class WandbLogger(lightning.pytorch.loggers.WandbLogger):
    """Logs a run to Weights & Biases: its whole configuration, metrics, sample grids, and checkpoints on request.

    Every plot has ``images_seen`` as its axis, so that models with other batch sizes, or with several optimizers that
    each count steps, can be compared. Nothing but a line with the run's address is printed. Without a network, give
    ``offline`` or set ``WANDB_MODE=offline``, and upload the run later with ``wandb sync``.

    Args:
        project: The project on W&B that the run belongs to.
        name: What the run is called; None: W&B makes up a name.
        id: The run to go on with. None: a new run, or with ``--ckpt_path`` on the command line the run that the
            checkpoint was saved in.
        entity: The W&B user or team; None: the user's default.
        group: Runs of one group are shown together, for instance one experiment with several seeds.
        tags: Words to find the run by.
        offline: Whether to keep the run on this machine; artifacts too are then uploaded by ``wandb sync``.
        log_model: Whether checkpoints are kept as artifacts: ``true``: the best and last, at the end; ``all``: each
            when it is saved.
        save_dir: The folder for ``wandb/…``. None: ``trainer.default_root_dir`` on the command line, in Python "runs".
    """

    def __init__(
        self,
        project: str = "lit-generative",
        name: str | None = None,
        id: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] | None = None,
        offline: bool = False,
        log_model: bool | Literal["all"] = False,
        save_dir: str | Path | None = None,
    ) -> None:
        super().__init__(
            project=project,
            name=name,
            id=id,
            log_model=log_model,
            save_dir=save_dir or "runs",
            entity=entity,
            group=group,
            tags=tags,
            # Lightning's own offline=True sets an environment variable, so that all later runs would be offline too
            mode="offline" if offline else None,
            settings=wandb.Settings(quiet=True),
        )
        del self._wandb_init["anonymous"]  # wandb warns about it, even if it is None

    @property
    @rank_zero_experiment
    def experiment(self) -> wandb.Run:  # type: ignore[override]
        """The W&B run; it starts when it is first asked for.

        Raises:
            ValueError: If W&B does not start the run: no login, no network, or a name that it does not take.
        """
        if self._experiment is not None:
            return self._experiment  # type: ignore[return-value]  # a disabled run has the same methods
        os.makedirs(self.save_dir or ".", exist_ok=True)
        try:
            run = super().experiment
        except wandb.Error as error:
            hint = "Without a login or a network, work offline: offline=True, or WANDB_MODE=offline."
            raise ValueError(f"W&B did not start the run: {error} {hint}") from error
        run.define_metric("images_seen")
        run.define_metric("*", step_metric="images_seen", step_sync=True)  # in place of Lightning's trainer/global_step
        return run
