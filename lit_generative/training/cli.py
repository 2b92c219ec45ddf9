"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI with recipes, and a folder for each run."""

import filecmp
import shlex
import shutil
import signal
from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import lit_generative.diffusion
import lit_generative.gan
import lit_generative.nn
import lit_generative.vae  # noqa: F401  imported so that short class names resolve
from lit_generative.callbacks import (
    Budget,
    EstimateLikelihood,
    Evaluate,
    ImagesProgressBar,
    LastCheckpoint,
    Outlook,
    SampleGrid,
    SampleWriter,
    SaveOnSignal,
    TrainingClock,
)
from lit_generative.callbacks.run import run_folder
from lit_generative.checkpoints import data_of, read_checkpoint
from lit_generative.core import GenerativeModule
from lit_generative.data import ImageDataModule  # noqa: F401
from lit_generative.data.adapter import declared_shape
from lit_generative.diffusion import Latents
from lit_generative.evaluation import Evaluator
from lit_generative.files import make_folder, replacing
from lit_generative.fine_tuning import take_weights
from lit_generative.finite import check_finite_weights
from lit_generative.loggers import IN_RUN_FOLDER, settle
from lit_generative.recipes import configs_folder
from lit_generative.training.classes import fill_in_classes
from lit_generative.training.first_stage import autoencoder_of, is_recipe, seconds_of, train_first_stage
from lit_generative.training.folder import (
    RunFolder,
    folder_below,
    named_by_data,
    own_name,
    run_folder_of,
)
from lit_generative.training.folder import (
    run_name as name_of_run,
)
from lit_generative.training.help import put_aside
from lit_generative.training.lengths import one_length
from lit_generative.training.parser import Parser, config_files, resolve_recipes, take_option
from lit_generative.training.spellings import in_short
from lit_generative.training.tuning import Tuning
from lit_generative.training_options import check_adapters

__all__ = ["TrainerCLI"]

USAGE = {"fit": "lit-generative fit --config RECIPE [--config EXTRA] [--from CKPT] [OPTIONS]"} | {
    command: f"lit-generative {command} CKPT [OPTIONS]" for command in ("validate", "test", "predict")
}
HELP = """`lit-generative recipes` lists the recipes. The options of the data, of a model and of its parts are listed by
--data.help ImageDataModule, --model.help VAE and, with a recipe, --model.encoder.help ConvEncoder. """
FROM = """Begin a new run with the weights of this checkpoint, as far as they fit. Without --config and --model it also
says what the model is."""
PARTS = (
    *("encoder", "decoder", "encoder.init_args.posterior", "prior_model", "code_prior"),
    *("generator", "discriminator", "adversary.init_args.discriminator", "network"),
)
DEFAULTS = {
    "data": {"class_path": "ImageDataModule"},
    "trainer.default_root_dir": "runs",
    "trainer.num_sanity_val_steps": 0,
    "trainer.log_every_n_steps": 20,
    "trainer.enable_model_summary": False,
}
CHECKPOINTS = {
    "checkpoint.monitor": "val/loss",
    "checkpoint.filename": "best",
    "checkpoint.enable_version_counter": False,
}


def wants_help(arguments: list[str]) -> bool:
    """Whether ``--help``, or for instance ``--model.help``, is among the options."""
    return any(argument in ("-h", "--help") or argument.split("=")[0].endswith(".help") for argument in arguments)


def _said_by(checkpoint_path: str) -> dict[str, Any]:
    """Return what a checkpoint says of itself; a bad file, or data that it may not name, end here."""
    checkpoint = read_checkpoint(checkpoint_path, map_location="meta")
    return checkpoint["lit_generative"] | {"data": data_of(checkpoint)}


def restored(checkpoint_path: str) -> GenerativeModule:
    """Load the model of a checkpoint.

    Args:
        checkpoint_path: What was given as ckpt_path.
    """
    model = GenerativeModule.load_from_checkpoint(checkpoint_path)
    check_finite_weights(model, checkpoint_path)
    return model


class SaveConfig(SaveConfigCallback):
    """Saves the configuration in the run's folder, beside that of a run that goes on, and hands it to every logger."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Save that of anything but a training, which may yet be refused."""
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; a former configuration, if it was another one, is kept as ``config.1.yaml``."""
        if isinstance(folder := trainer.loggers[0], RunFolder):
            folder.take_over()
        file = run_folder(trainer) / self.config_filename
        is_followed = trainer.is_global_zero and file.is_file()
        former = Path(shutil.copy2(file, _next_free(file))) if is_followed else None
        if trainer.is_global_zero:
            with replacing(file) as scratch:  # a kill leaves the former one
                scratch.write_text(self.parser.dump(self.config, skip_none=False))
        self.save_to_log_dir = False
        super().setup(trainer, pl_module, "fit")
        if former is not None and filecmp.cmp(former, file, shallow=False):
            former.unlink()

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hand it over; that of ``test`` goes under ``test``, since the run may be the training's own."""
        config = yaml.safe_load(self.parser.dump(self.config, skip_none=False))
        for logger in trainer.loggers[1:]:  # the first is the folder's own, which has the file
            logger.log_hyperparams(config if stage == "fit" else {stage: config})


def _listed(value: Any) -> list[Any]:
    """Return what an option that takes one thing, several or none was given, as a list."""
    return [] if value is None else [*value] if isinstance(value, list | tuple) else [value]


def _next_free(file: Path) -> Path:
    return next(path for n in count(1) if not (path := file.with_suffix(f".{n}{file.suffix}")).exists())


class TrainerCLI(LightningCLI):
    """LightningCLI for a GenerativeModule and its data: it runs a command to its end, with a folder for each run.

    ``validate``, ``test`` and ``predict`` need nothing but ``--ckpt_path``: the checkpoint says which model and which
    data it was trained on.

    Args:
        command: fit, validate, test or predict.
        arguments: The command's options.
        callbacks: Further callbacks of the trainer.
        says_where: Whether it is printed where everything is: of no use where a run is a part of something larger.
        run_name: What the run is called; None: as its data and its recipe.
    """

    def __init__(
        self,
        command: str,
        arguments: list[str],
        callbacks: Sequence[Callback] = (),
        says_where: bool = True,
        run_name: str | None = None,
    ) -> None:
        arguments, recipes = resolve_recipes(arguments)
        arguments = one_length(arguments) if command == "fit" else arguments
        checkpoint_path = take_option(arguments, "--ckpt_path")
        self.tuning = Tuning(arguments if command == "fit" else ())
        has_model = bool(recipes or take_option(arguments, "--model") or take_option(arguments, "--model.class_path"))
        if not (has_model or checkpoint_path or self.tuning.source or wants_help(arguments)):
            of_fit = "--config vae/fashion (see lit-generative recipes)"
            hint = of_fit if command == "fit" else f"a checkpoint: lit-generative {command} CKPT"
            raise ValueError(f"no model is given; add for instance {hint}")
        self.command, self.callbacks, self.says_where = command, callbacks, says_where
        self.latent_shape: tuple[int, int, int] | None = None
        self.seconds_before = 0.0, 0.0  # of the training of a first stage
        self.checkpoint_path = checkpoint_path
        self.saved = {} if checkpoint_path is None else _said_by(checkpoint_path)
        is_restored = command != "fit" and not has_model
        if is_restored and self.saved and not self.saved["data"] and not any(a.startswith("--data") for a in arguments):
            raise ValueError(f"checkpoint {checkpoint_path} does not say which data it was trained with: give --data")
        self.restored_from = checkpoint_path if is_restored else None  # else the configuration says what the model is
        self.recipe_name, self.recipe_files = "-".join(recipes), config_files(arguments)
        if self.tuning.describes:
            self.recipe_name = self.tuning.run_name
        self.run_name = command if self.restored_from else run_name
        super().__init__(
            restored if self.restored_from else GenerativeModule,
            L.LightningDataModule,
            subclass_mode_model=not self.restored_from,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # our checkpoints describe models built in Python as well
            parser_class=Parser,
            parser_kwargs={
                "allow_abbrev": False,
                command: {"usage": USAGE[command], "description": HELP + in_short(command)},
            },
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            args=[command, *arguments],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return the one command that runs: the parsers of all four take seconds to build."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the callbacks that every run has, and where model and networks get their arguments from."""
        parser.set_defaults(DEFAULTS)
        parser.add_class_arguments(Evaluator, "evaluation")
        parser.add_lightning_class_args(Evaluate, "evaluate")
        parser.link_arguments("evaluation", "evaluate.evaluator", apply_on="instantiate")
        if self.command == "test":
            parser.add_lightning_class_args(EstimateLikelihood, "likelihood")
        if self.command == "fit":
            parser.add_lightning_class_args(Budget, "budget")
            parser.add_lightning_class_args(SampleGrid, "grid")
            parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
            parser.set_defaults(CHECKPOINTS)
            parser.add_argument("--from", type=str | None, help=FROM)
        put_aside(parser)
        if self.restored_from is None:
            self._link_networks(parser)
            if self.tuning.describes:
                parser.set_defaults(self.tuning.defaults(PARTS))
        else:
            parser.set_defaults(self._restored_defaults(Path(self.restored_from)))

    def _link_networks(self, parser: LightningArgumentParser) -> None:
        """Let networks learn shape and classes from the data and the model."""
        for part in PARTS:
            target = f"model.init_args.{part}.init_args"
            shape = self._shape_of_states if part == "network" else declared_shape
            parser.link_arguments("data", f"{target}.image_shape", shape, apply_on="instantiate")
            for shared in ("latent_dim", "num_classes", "condition"):
                parser.link_arguments(f"model.init_args.{shared}", f"{target}.{shared}")
        parser.link_arguments("data", "model.init_args.image_shape", declared_shape, apply_on="instantiate")

    def _settle_latents(self, config: Any) -> None:
        """Train the autoencoder, if a recipe is given for it, and learn the latents' shape before data are read."""
        autoencoder = autoencoder_of(config)
        if self.command == "fit" and is_recipe(autoencoder):
            arguments = config["model"]["init_args"]["latents"]["init_args"]
            if self.checkpoint_path is not None:  # which has it
                arguments["autoencoder"] = self.checkpoint_path
            else:
                fit = partial(TrainerCLI, "fit", says_where=self.says_where)
                self.seconds_before = seconds_of(train_first_stage(config, fit))
                self._set_seed()
        if (latents := config["model"]["init_args"].get("latents")) is not None:
            self.latent_shape = Latents(**latents["init_args"]).shape

    def _shape_of_states(self, data: L.LightningDataModule) -> tuple[int, int, int]:
        """Return the shape of what a network denoises: of the images, or of a trained autoencoder's latents."""
        return declared_shape(data) if self.latent_shape is None else self.latent_shape

    def _restored_defaults(self, checkpoint: Path) -> dict[str, Any]:
        """Return what a checkpoint decides: model, data, precision, and that the run's folder goes beside its own."""
        run = checkpoint.parents[1] if checkpoint.parent.name == "checkpoints" else "runs"
        of_model = {"model.checkpoint_path": str(checkpoint), "trainer.precision": self.saved["state"]["precision"]}
        of_data = {"data": self.saved["data"]} if self.saved["data"] else {}
        return of_model | of_data | {"trainer.default_root_dir": str(run)}

    def _parse_ckpt_path(self) -> None:
        """Leave the checkpoint's ``hyper_parameters`` alone: Lightning would import the class that they name."""

    def before_instantiate_classes(self) -> None:
        """Fill in what the data and the checkpoint know.

        Those are the number of classes, the loggers' place below the trainer's root, and the runs to go on with.
        """
        if self.restored_from is None:
            self._settle_latents(self.config[self.command])
            fill_in_classes(self._get(self.config, "model"), self._get(self.config, "data"))
        config = self._get(self.config, "trainer")
        loggers = config["logger"] if isinstance(config["logger"], list) else [config["logger"]]
        for logger in loggers:
            if isinstance(logger, None | bool):
                continue
            options = logger.get("init_args", {})
            run = self.saved.get("runs", {}).get(logger["class_path"].rpartition(".")[2])
            for name, value in {"save_dir": config["default_root_dir"], "id": run}.items():
                is_settled = name == "save_dir" and logger["class_path"].rpartition(".")[2] in IN_RUN_FOLDER
                if name in options and options[name] is None and not is_settled:
                    options[name] = value

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Put the run's folder first among the loggers, and add what needs no options."""
        self._take_weights()
        config = self._get(self.config_init, "trainer")
        if self.command == "fit" and self._get(self.config_init, "budget").is_active:  # in place of a recipe's length
            config["max_epochs"], config["max_steps"], config["max_time"] = -1, -1, None
        if config["barebones"]:
            return self._bare_trainer(config)
        if 0 < (config["max_epochs"] or 0) < (config["check_val_every_n_epoch"] or 0):  # a recipe's run cut short
            config["check_val_every_n_epoch"] = config["max_epochs"]
        loggers: list[Logger] = [] if config["logger"] in (None, True, False) else _listed(config["logger"])
        callbacks = [*_listed(config["callbacks"]), *self.callbacks]
        if config["enable_progress_bar"] is not False and not any(isinstance(c, ProgressBar) for c in callbacks):
            callbacks.append(ImagesProgressBar())
        if self.command == "fit":
            callbacks += [Outlook()] if self.says_where else []
            callbacks.append(TrainingClock(self.seconds_before))  # it counts a step before anything is saved
            callbacks += [] if config["enable_checkpointing"] is False else [LastCheckpoint()]
        callbacks += [SampleWriter()] if self.command == "predict" else []
        callbacks.append(SaveOnSignal())
        if config["enable_checkpointing"] is False:
            self._parser(self.subcommand).callback_keys.remove("checkpoint")
        folder = self._run_folder(Path(config["default_root_dir"]))
        settle(loggers, Path(folder.log_dir), folder.name if self.command == "fit" else "")
        trainer = super().instantiate_trainer(logger=[folder, *loggers], callbacks=callbacks, **kwargs)
        if not config["fast_dev_run"]:  # now that the trainer has taken its options
            make_folder(Path(folder.log_dir), "trainer.default_root_dir")
        return trainer

    def _take_weights(self) -> None:
        """Let a new run begin with the weights that it is to have; what does not go is said before a folder is made."""
        if self.tuning.source is not None:
            taken = take_weights(self.model, self.tuning.source)  # type: ignore[arg-type]
            if self.says_where:
                rank_zero_only(print)(taken)
        elif self.command == "fit" and self.checkpoint_path is None:
            check_adapters(self.model)

    def _bare_trainer(self, config: Any) -> L.Trainer:
        """Return a trainer that trains and does nothing else: no folder, no evaluation, no checkpoint."""
        self._parser(self.subcommand).callback_keys.clear()
        self.save_config_callback = None
        config["log_every_n_steps"] = None  # Lightning refuses what it would not do
        budget = [self._get(self.config_init, "budget")] if self.command == "fit" else []
        return super().instantiate_trainer(logger=False, callbacks=[*_listed(config["callbacks"]), *budget])

    def _named_by_data(self) -> str:
        """Return what a new run is called, by its data, if they are not those of the recipe, and by its recipe."""
        extras = configs_folder() / "extras"
        file = next((file for file in self.recipe_files if extras not in file.parents), None)
        return named_by_data(self.recipe_name or type(self.model).__name__.lower(), own_name(self.datamodule, file))

    def _run_folder(self, root: Path) -> RunFolder:
        """Return the folder of the run: its own, if it goes on from its last checkpoint, or else a new one."""
        name = self.run_name or self._named_by_data()
        checkpoint = Path(self.checkpoint_path or "")
        run = run_folder_of(checkpoint) if self.command == "fit" and self.checkpoint_path else None
        if run is None:
            return RunFolder(str(root), name)
        below = folder_below(run, root)
        is_latest = name_of_run(run) is not None and checkpoint.name == "last.ckpt"
        if below is None or not is_latest:  # what came behind another checkpoint is kept
            return RunFolder(str(root), name_of_run(run) or name)
        within, _, version = below.rpartition("/")
        return RunFolder(str(root), within, int(version.removeprefix("version_")), self.saved["state"]["images_seen"])

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        options = super()._prepare_subcommand_kwargs(subcommand)
        return options | ({"verbose": False} if "verbose" in options else {})  # Evaluate prints the table

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except SystemExit:  # Lightning's end of a run that was interrupted
            raise SystemExit(128 + (self._on_signal.received or signal.SIGINT)) from None
        finally:
            if self.says_where:
                self._say_where_everything_is()

    @property
    def _on_signal(self) -> SaveOnSignal:
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return next((c for c in callbacks if isinstance(c, SaveOnSignal)), SaveOnSignal())

    def _say_where_everything_is(self) -> None:
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if not self.trainer.loggers:  # barebones
            return
        # not by run_folder: it waits for the other processes, which may have failed
        folder = Path(self.trainer.loggers[0].log_dir or self.trainer.default_root_dir)
        if folder.is_dir():  # else the run was refused
            print(f"run folder: {folder}")
        if grids := sorted(folder.glob("grids/*.png")):
            print(f"samples: {grids[-1]}")
        if saved := self._on_signal.saved:
            options = shlex.join(["--config", f"{folder}/config.yaml", "--ckpt_path", saved])
            print(f"go on with: lit-generative fit {options}")
