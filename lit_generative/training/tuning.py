"""What ``fit --from CKPT`` takes from a checkpoint beside its weights: what is not said otherwise."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lit_generative.checkpoints import data_of, model_of, read_checkpoint
from lit_generative.files import read_yaml
from lit_generative.training.folder import run_folder_of, run_name
from lit_generative.training.parser import config_files, take_option

__all__ = ["Tuning"]

SIZES = ("image_shape", "num_classes", "latent_dim")  # that networks are told by data and model


class Tuning:
    """A training that begins with the weights of a checkpoint.

    Args:
        arguments: The options of ``fit``, whose recipes are files by now.

    Attributes:
        source: The checkpoint; None: it begins with new weights.
        describes: Whether the checkpoint says what the model is, since the options do not.

    Raises:
        ValueError: If the file is refused, or it is also to be gone on from.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.configuration: dict[str, Any] = {}
        for path in config_files(arguments):
            found = read_yaml(path)
            self.configuration |= found if isinstance(found, dict) else {}
        given = take_option(self.arguments, "--from")
        if given is not None and (other := take_option(self.arguments, "--ckpt_path")) is not None:
            raise ValueError(
                f"--from {given} begins a new run, --ckpt_path {other} goes on with an old one: give one of them"
            )
        goes_on = take_option(self.arguments, "--ckpt_path") is not None  # a configuration may still say from
        source = given if given is not None else None if goes_on else self.configuration.get("from")
        self.source = None if source is None else Path(str(source))
        self.describes = self.source is not None and not self._says("model", ("--model", "--model.class_path"))
        if self.source is not None:
            self._read(self.source)

    def _read(self, source: Path) -> None:
        if source.is_dir():
            last = source / "checkpoints" / "last.ckpt"
            raise ValueError(f"--from {source} is a folder{f'; did you mean {last}?' if last.is_file() else ''}")
        checkpoint = read_checkpoint(source, map_location="meta")
        self.state = checkpoint["lit_generative"]["state"]
        if self.describes:
            self.model = model_of(checkpoint)
            self.data = data_of(checkpoint)

    @property
    def run_name(self) -> str:
        """What the run is called: after that of the checkpoint."""
        assert self.source is not None
        run = run_folder_of(self.source)
        return f"{(run and run_name(run)) or self.source.stem}-tuned"

    def defaults(self, parts: Sequence[str]) -> dict[str, Any]:
        """Return what the checkpoint says of model, data and training.

        Args:
            parts: The places of networks that learn sizes from data and model.
        """
        defaults: dict[str, Any] = {"model": _without_sizes(self.model, parts)}
        if self.model["init_args"].get("num_classes") is not None:
            defaults["model"]["init_args"]["num_classes"] = 0  # as many as the data have
        defaults["trainer.precision"] = self.state["precision"]
        defaults["data"] = self._data()
        # EMA's own name of itself; a training that was averaged is so again
        if average := re.fullmatch(r"ema ([\d.]+)(?: of (\S+))?", self.state["weights"]):
            options = {"decay": float(average[1]), "part": average[2]}
            defaults["trainer.callbacks"] = [{"class_path": "EMA", "init_args": options}]
        return defaults

    def _data(self) -> dict[str, Any]:
        """Return the checkpoint's data; of other images, only how they become what the model knows."""
        has_others = self._says("data", ("--data", "--data.class_path", "--data.dataset"))
        if self.data is not None and not has_others:
            return self.data
        shape: Any = _find(self.model, "image_shape") or ()
        size = {"image_size": shape[1] if shape[1] == shape[2] else list(shape[1:])} if len(shape) == 3 else {}
        channels = {"channels": shape[0]} if len(shape) == 3 and shape[0] in (1, 3) else {}
        is_other = self._says("data", ("--data", "--data.class_path"))
        return {"class_path": "ImageDataModule", "init_args": {} if is_other else size | channels}

    def _says(self, key: str, options: Sequence[str]) -> bool:
        return key in self.configuration or any(take_option(self.arguments, option) is not None for option in options)


def _without_sizes(model: dict[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """Return a model's configuration without what its networks learn from the data and from itself."""
    known = {"model": {**model, "init_args": dict(model["init_args"])}}
    known["model"]["init_args"].pop("image_shape", None)
    for place in parts:
        part: Any = known["model"]["init_args"]
        keys = place.replace(".init_args.", ".").split(".")
        for i, key in enumerate(keys):
            if not isinstance(part.get(key), dict) or "init_args" not in part[key]:
                break
            part[key] = {**part[key], "init_args": dict(part[key]["init_args"])}
            part = part[key]["init_args"]
            if i == len(keys) - 1:
                for size in SIZES:
                    part.pop(size, None)
    return known["model"]


def _find(description: Any, name: str) -> Any:
    """Return the first value of an argument in a description."""
    parts = (
        description.values() if isinstance(description, dict) else description if isinstance(description, list) else ()
    )
    if isinstance(description, dict) and name in description:
        return description[name]
    return next((found for part in parts if (found := _find(part, name)) is not None), None)
