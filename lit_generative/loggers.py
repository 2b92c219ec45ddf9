"""Loggers of runs, besides Lightning's own, and what loggers can take besides numbers."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import lightning.pytorch.loggers
import numpy as np
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from PIL import Image

if TYPE_CHECKING:
    import wandb  # whose import takes a second; only those who use it pay for it

__all__ = ["WandbLogger", "log_picture", "log_table"]

# Seconds: for W&B to answer before a run goes on without it, and to take what is left when a run has ended
LONGEST_WAITS = {"init_timeout": 15.0, "finish_timeout": 300.0}


@runtime_checkable
class _TakesImages(Protocol):
    """A logger of pictures in files, such as W&B's."""

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None: ...


@runtime_checkable
class _TakesTables(Protocol):
    """A logger of tables, such as W&B's."""

    def log_table(self, key: str, columns: list[str], data: list[list[Any]]) -> None: ...


@runtime_checkable
class _Writer(Protocol):
    """What TensorBoard's logger has for its experiment."""

    def add_image(self, tag: str, pixels: Any, global_step: int | None = None, *, dataformats: str) -> None: ...
    def add_text(self, tag: str, text: str) -> None: ...


@runtime_checkable
class _HasExperiment(Protocol):
    experiment: Any


def _writer(logger: Logger) -> _Writer | None:
    experiment = logger.experiment if isinstance(logger, _HasExperiment) else None
    return experiment if isinstance(experiment, _Writer) else None


def log_table(logger: Logger, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Give a table to a logger that takes tables, or texts; others are left alone.

    Args:
        logger: ``WandbLogger`` makes a ``wandb.Table`` of it, ``TensorBoardLogger`` a text.
        name: What the table is called.
        columns: Their headings.
        rows: A cell for each column.
    """
    if isinstance(logger, _TakesTables):
        logger.log_table(key=name, columns=list(columns), data=[list(row) for row in rows])
    elif (writer := _writer(logger)) is not None:
        lines = [columns, ["---"] * len(columns), *rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        writer.add_text(name, table)


def log_picture(logger: Logger, name: str, path: Path, step: int | None = None, images_seen: int | None = None) -> None:
    """Give a PNG file to a logger that takes images; others are left alone.

    Args:
        logger: ``WandbLogger`` and ``TensorBoardLogger`` take images.
        name: What the picture is called.
        path: The file.
        step: When it was drawn, in steps of the training.
        images_seen: ... and in images, the axis of W&B's plots.
    """
    if isinstance(logger, _TakesImages):
        if images_seen is not None:
            logger.log_metrics({"images_seen": images_seen}, step)
        logger.log_image(key=name, images=[str(path)], **({} if step is None else {"step": step}))
    elif (writer := _writer(logger)) is not None:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        writer.add_image(name, pixels, dataformats="HWC", **({} if step is None else {"global_step": step}))


class WandbLogger(lightning.pytorch.loggers.WandbLogger):
    """Logs a run to Weights & Biases: its whole configuration, metrics, sample grids, and checkpoints on request.

    Every plot has ``images_seen`` as its axis, so that models with other batch sizes, or with several optimizers that
    each count steps, can be compared. Nothing but a line with the run's address is printed.

    A run is never lost to its tracker: where W&B cannot be reached, or no login is found, it is kept on this machine,
    which is said with the command that uploads it later. ``offline``, or ``WANDB_MODE=offline``, does so at once.

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
        import wandb

        known = wandb.Settings.__annotations__  # finish_timeout came with wandb 0.27
        waits: dict[str, Any] = {name: seconds for name, seconds in LONGEST_WAITS.items() if name in known}
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
            settings=wandb.Settings(quiet=True, **waits),
        )
        del self._wandb_init["anonymous"]  # wandb warns about it, even if it is None

    @property
    @rank_zero_experiment
    def experiment(self) -> "wandb.Run":  # type: ignore[override]
        """The W&B run; it starts when it is first asked for.

        Raises:
            ValueError: If W&B does not start the run on this machine either, for instance because of its name.
        """
        import wandb

        if self._experiment is not None:
            return self._experiment  # type: ignore[return-value]  # a disabled run has the same methods
        os.makedirs(self.save_dir or ".", exist_ok=True)
        try:
            run = super().experiment
        except wandb.Error as error:
            run = self._start_offline(str(error).strip().partition("\n")[0])
        run.define_metric("images_seen")
        run.define_metric("*", step_metric="images_seen", step_sync=True)  # in place of Lightning's trainer/global_step
        return run

    def _start_offline(self, reason: str) -> "wandb.Run":
        import wandb

        self._wandb_init["mode"] = "offline"
        try:
            run = super().experiment
        except wandb.Error as error:
            raise ValueError(f"W&B did not start the run: {error}") from error
        upload = f"wandb sync {Path(run.dir).parent}"
        print(f"W&B: {reason.rstrip('.')}. The run is kept on this machine; upload it by: {upload}")
        return run
