"""The autoencoder of a latent model, where a recipe and no checkpoint is given for it: it is trained first."""

import json
from pathlib import Path
from typing import Any

from lit_generative.callbacks import TrainingClock
from lit_generative.callbacks.budget import number_of_images
from lit_generative.callbacks.clock import in_all
from lit_generative.checkpoints import read_checkpoint
from lit_generative.recipes import recipes

__all__ = ["SHARE", "autoencoder_of", "is_recipe", "seconds_of", "train_first_stage"]

SHARE = 0.4  # of the minutes, or of the images, that both stages have


def is_recipe(autoencoder: Any) -> bool:
    """Whether it is the name of a recipe that ships."""
    return any(recipe.name == autoencoder for recipe in recipes()) and not Path(str(autoencoder)).exists()


def autoencoder_of(config: Any) -> Any:
    """Return what a model's configuration gives for the autoencoder of its latents; None if it has no latents."""
    latents = config["model"]["init_args"].get("latents")
    return None if latents is None else latents["init_args"].get("autoencoder")


def train_first_stage(config: Any, train: Any) -> Path:
    """Train the autoencoder on the data of the second stage, in a run of its own; return its checkpoint.

    Of a budget it takes its share, which the second stage then does not have; otherwise it is as long as its recipe.

    Args:
        config: The second stage's configuration, whose budget and autoencoder are changed.
        train: Runs ``fit`` with options.

    Raises:
        ValueError: If there are several devices, whose processes could not wait for each other, or under fast_dev_run.
    """
    recipe, trainer, budget = autoencoder_of(config), config["trainer"], config["budget"]
    if str(trainer["devices"]) not in ("auto", "1") or trainer["num_nodes"] != 1:
        raise ValueError(
            f"latents.autoencoder={recipe} is trained first, on one device, but trainer.devices={trainer['devices']}: "
            "train it by itself, and give its checkpoint, --model.latents.autoencoder CKPT"
        )
    if trainer["fast_dev_run"]:
        raise ValueError(
            f"latents.autoencoder={recipe} would be trained first, and trainer.fast_dev_run keeps no checkpoint: "
            "give one, --model.latents.autoencoder CKPT"
        )
    print(f"first {recipe}, whose latents are drawn then")
    options = ["--seed_everything", str(config["seed_everything"])]
    for name in ("accelerator", "default_root_dir", "enable_progress_bar"):
        options += [] if trainer[name] is None else [f"--trainer.{name}", str(trainer[name])]
    if (minutes := budget["minutes"]) is not None:
        budget["minutes"] = (1 - SHARE) * minutes
        options += ["--budget.minutes", str(SHARE * minutes)]
    if (images := number_of_images(budget["images"])) is not None:
        budget["images"] = images - round(SHARE * images)
        options += ["--budget.images", str(round(SHARE * images))]
    options += ["--evaluate.every_n_epochs", "null", "--evaluate.at_end", "false"]  # its own samples are of no use
    options += ["--budget.evaluations", "null"]
    data = config["data"].as_dict()
    data["init_args"].pop("batch_size", None)  # the recipe has its own
    run = train(["--config", recipe, "--data", json.dumps(data), *options, "--trainer.devices", "1"])
    checkpoint = Path(run.trainer.loggers[0].log_dir) / "checkpoints" / "last.ckpt"
    config["model"]["init_args"]["latents"]["init_args"]["autoencoder"] = str(checkpoint)
    return checkpoint


def seconds_of(checkpoint: Path) -> tuple[float, float]:
    """Return the seconds of training of a checkpoint, and the seconds times devices; 0 where they are not known."""
    clock = read_checkpoint(checkpoint, "meta").get("callbacks", {}).get(TrainingClock.__name__, {})
    return in_all(clock) if clock.get("seconds") is not None else (0.0, 0.0)
