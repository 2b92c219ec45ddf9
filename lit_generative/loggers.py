"""Loggers of runs, besides Lightning's own, and what loggers can take besides numbers."""

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import lightning.pytorch.loggers
import numpy as np
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from PIL import Image

if TYPE_CHECKING:
    import wandb  # whose import takes a second; only those who use it pay for it

__all__ = [
    *("CSVLogger", "MLFlowLogger", "TensorBoardLogger", "WandbLogger"),
    *("IN_RUN_FOLDER", "log_picture", "log_table", "settle"),
]

IN_RUN_FOLDER = ("CSVLogger", "TensorBoardLogger")  # that write into the folder of their run where no other is given

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
class _MlflowClient(Protocol):
    """What MLflow's logger has for its experiment."""

    def log_image(self, run_id: str, image: Any, *, key: str, step: int | None = None) -> None: ...
    def log_text(self, run_id: str, text: str, artifact_file: str) -> None: ...


@runtime_checkable
class _CometExperiment(Protocol):
    """What Comet's logger has for its experiment."""

    def log_image(self, image_data: str, name: str | None = None, *, step: int | None = None) -> Any: ...
    def log_table(self, filename: str, tabular_data: Any = None, headers: Any = False) -> Any: ...


@runtime_checkable
class _HasExperiment(Protocol):
    experiment: Any


@runtime_checkable
class _HasRun(Protocol):
    run_id: Any


def _experiment(logger: Logger) -> Any:
    return logger.experiment if isinstance(logger, _HasExperiment) else None


def _as_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def log_table(logger: Logger, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Give a table to a logger that takes tables, or texts; others are left alone.

    Args:
        logger: Those of W&B and Comet make a table of it, those of TensorBoard and MLflow a text.
        name: What the table is called.
        columns: Their headings.
        rows: A cell for each column.
    """
    if isinstance(logger, _TakesTables):
        logger.log_table(key=name, columns=list(columns), data=[list(row) for row in rows])
        return
    experiment = _experiment(logger)
    if isinstance(experiment, _Writer):
        experiment.add_text(name, _as_text(columns, rows))
    elif isinstance(experiment, _MlflowClient) and isinstance(logger, _HasRun):
        experiment.log_text(logger.run_id, _as_text(columns, rows), f"{name}.md")
    elif isinstance(experiment, _CometExperiment):
        experiment.log_table(f"{name}.csv", tabular_data=[list(row) for row in rows], headers=list(columns))


def log_picture(logger: Logger, name: str, path: Path, step: int | None = None, images_seen: int | None = None) -> None:
    """Give a PNG file to a logger that takes images; others are left alone.

    Args:
        logger: Those of W&B, TensorBoard, MLflow and Comet take images.
        name: What the picture is called.
        path: The file.
        step: When it was drawn, in steps of the training.
        images_seen: ... and in images, the axis of W&B's plots.
    """
    if isinstance(logger, _TakesImages):
        if images_seen is not None:
            logger.log_metrics({"images_seen": images_seen}, step)
        logger.log_image(key=name, images=[str(path)], **({} if step is None else {"step": step}))
        return
    experiment = _experiment(logger)
    if isinstance(experiment, _Writer):
        experiment.add_image(name, _pixels(path), dataformats="HWC", **({} if step is None else {"global_step": step}))
    elif isinstance(experiment, _MlflowClient) and isinstance(logger, _HasRun):
        experiment.log_image(logger.run_id, _pixels(path), key=name, step=step)
    elif isinstance(experiment, _CometExperiment):
        experiment.log_image(str(path), name, step=step)


def _pixels(path: Path) -> np.ndarray:
    """Return a picture's levels, (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _check_installed(logger: Logger, package: str) -> None:
    if find_spec(package) is None:
        raise ImportError(f"{type(logger).__name__} needs a package that is not installed: pip install {package}")


def settle(loggers: Iterable[Logger], run_folder: Path, name: str = "") -> None:
    """Tell loggers that write into the folder of their run which it is, and W&B what a new run is called."""
    for logger in loggers:
        if isinstance(logger, _InRunFolder):
            logger.settle(run_folder)
        elif isinstance(logger, WandbLogger):
            logger.call(name)


class _InRunFolder:
    """A logger that writes into the folder of its run, which is known later than the logger is made."""

    _is_in_run: bool
    _version: Any

    def settle(self, run_folder: Path) -> None:
        """Write into the folder of a run, unless another one was given."""
        if self._is_in_run:
            self._root_dir = self._save_dir = str(run_folder)
            self._version = "" if self._version is None else self._version


class TensorBoardLogger(_InRunFolder, lightning.pytorch.loggers.TensorBoardLogger):
    """Logs a run to TensorBoard: its configuration, metrics and sample grids.

    On the command line the files are in the run's folder, in ``tensorboard``: ``tensorboard --logdir runs`` shows all
    runs. It needs ``pip install tensorboard``.

    Args:
        save_dir: The folder for the logs. None: the run's folder on the command line, in Python "runs".
        name: The folder within it. None: "tensorboard" in the run's folder, else "lightning_logs".
        version: The folder within that; None: none in the run's folder, else the next number.
        prefix: What the names of metrics begin with.
    """

    def __init__(
        self,
        save_dir: str | Path | None = None,
        name: str | None = None,
        version: int | str | None = None,
        prefix: str = "",
    ) -> None:
        _check_installed(self, "tensorboard")
        self._is_in_run = save_dir is None
        name = ("tensorboard" if self._is_in_run else "lightning_logs") if name is None else name
        super().__init__(save_dir or "runs", name, version, default_hp_metric=False, prefix=prefix)


class CSVLogger(_InRunFolder, lightning.pytorch.loggers.CSVLogger):
    """Logs metrics to a table of one's own, besides ``metrics.csv``, which every run's folder has.

    Args:
        save_dir: The folder for the logs. None: the run's folder on the command line, in Python "runs".
        name: The folder within it. None: "csv" in the run's folder, else "lightning_logs".
        version: The folder within that; None: none in the run's folder, else the next number.
        prefix: What the names of metrics begin with.
        flush_logs_every_n_steps: Steps between two writes.
    """

    def __init__(
        self,
        save_dir: str | Path | None = None,
        name: str | None = None,
        version: int | str | None = None,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        self._is_in_run = save_dir is None
        name = ("csv" if self._is_in_run else "lightning_logs") if name is None else name
        super().__init__(save_dir or "runs", name, version, prefix, flush_logs_every_n_steps)


class MLFlowLogger(lightning.pytorch.loggers.MLFlowLogger):
    """Logs a run to MLflow: its configuration, metrics and sample grids. It needs ``pip install mlflow``.

    Args:
        experiment_name: The experiment that the run belongs to.
        run_name: What the run is called; None: MLflow makes up a name.
        tracking_uri: The server, or a data base such as ``sqlite:///runs/mlflow.db``. None: ``$MLFLOW_TRACKING_URI``,
            or ``mlflow.db`` in ``save_dir``.
        tags: Words to find the run by, with their values.
        save_dir: The folder of all runs. None: ``trainer.default_root_dir`` on the command line, in Python "runs".
        log_model: Whether checkpoints are kept as artifacts: ``true``: at the end; ``all``: each when it is saved.
        prefix: What the names of metrics begin with.
        run_id: The run to go on with; None: a new run.
    """

    def __init__(
        self,
        experiment_name: str = "lit-generative",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, str] | None = None,
        save_dir: str | Path | None = None,
        log_model: bool | Literal["all"] = False,
        prefix: str = "",
        run_id: str | None = None,
    ) -> None:
        _check_installed(self, "mlflow")
        folder = Path(save_dir or "runs").absolute()
        uri = tracking_uri or os.getenv("MLFLOW_TRACKING_URI") or f"sqlite:///{folder}/mlflow.db"
        super().__init__(
            experiment_name, run_name, uri, tags, str(folder), log_model, prefix, str(folder / "mlruns"), run_id
        )


class WandbLogger(lightning.pytorch.loggers.WandbLogger):
    """Logs a run to Weights & Biases: its whole configuration, metrics, sample grids, and checkpoints on request.

    Every plot has ``images_seen`` as its axis, so that models with other batch sizes, or with several optimizers that
    each count steps, can be compared. Nothing but a line with the run's address is printed.

    A run is never lost to its tracker: where W&B cannot be reached, or no login is found, it is kept on this machine,
    which is said with the command that uploads it later. ``offline``, or ``WANDB_MODE=offline``, does so at once.

    Args:
        project: The project on W&B that the run belongs to.
        name: What the run is called; None: on the command line as its folder, in Python W&B makes up a name.
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

    def call(self, name: str) -> None:
        """Give a new run a name, unless it has one."""
        if name and self._wandb_init.get("name") is None and self._id is None:
            self._wandb_init["name"] = name

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
