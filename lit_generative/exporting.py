"""Checkpoints of adapted networks as those of plain ones, and files of adapters put on their base."""

from pathlib import Path
from typing import Any

from lit_generative.checkpoints import KEY, WholeCheckpoints, check_weights, read_adapters, read_checkpoint, unpack
from lit_generative.core import GenerativeModule
from lit_generative.description import find
from lit_generative.evaluation.identity import weights_digest
from lit_generative.files import check_folder
from lit_generative.fine_tuning import take_weights
from lit_generative.finite import check_finite_weights
from lit_generative.nn.adapters import LowRankAdapters, adapted_networks, merged_state

__all__ = ["export_checkpoint", "load_adapters"]

OF_TRAINING = ("optimizer_states", "lr_schedulers", "loops", "callbacks")  # what an exported model needs no more


def export_checkpoint(
    ckpt_path: Path, output: Path, adapters: Path | None = None, merge_adapters: bool = False
) -> None:
    """Write the model of a checkpoint in another form.

    Args:
        ckpt_path: The model's checkpoint; with ``adapters``, the one that they were trained on.
        output: The file to write, a checkpoint (.ckpt) for all commands; a training cannot go on from it.
        adapters: A file of adapters alone, as it lies beside the checkpoints of a training with adapters.
        merge_adapters: Whether to put what the adapters add into the weights, so that the networks are plain ones.

    Raises:
        FileNotFoundError: If there is no such file.
        FloatingPointError: If the weights are not finite.
        ValueError: If ``output`` is there already, if there is nothing to do, or if the adapters are another base's.
    """
    _check_output(output)
    if adapters is None and not merge_adapters:
        raise ValueError("export: say what to do, --merge_adapters, or --adapters FILE for adapters of this checkpoint")
    checkpoint = read_checkpoint(ckpt_path, map_location="cpu")
    model = GenerativeModule.load_from_checkpoint(ckpt_path, map_location="cpu")
    if adapters is not None:
        model = load_adapters(ckpt_path, adapters)
        checkpoint[KEY] = {name: value for name, value in read_adapters(adapters)[KEY].items() if name != "base_sha256"}
        checkpoint["callbacks"] = {}
    elif not any(adapted_networks(model)):
        raise ValueError(f"--merge_adapters: the networks of {ckpt_path} have no adapters; they are plain already")
    check_finite_weights(model, adapters or ckpt_path)
    names = sorted(name for name, _, _ in adapted_networks(model))
    checkpoint["state_dict"] = merged_state(model) if merge_adapters else model.state_dict()
    if merge_adapters:
        checkpoint[KEY]["model"] = _without_adapters(checkpoint[KEY]["model"])
        checkpoint[KEY].pop("adapted", None)
        check_weights(unpack(checkpoint, GenerativeModule, {}, str(ckpt_path)), checkpoint["state_dict"])
    clock = {k: v for k, v in checkpoint.get("callbacks", {}).items() if k == "TrainingClock"}  # comparisons ask it
    kept = {name: value for name, value in checkpoint.items() if name not in OF_TRAINING}
    WholeCheckpoints().save_checkpoint(kept | {"callbacks": clock}, output)
    print(f"{output}: {type(model).__name__}, adapters of {', '.join(names)} {'merged' if merge_adapters else 'kept'}")


def load_adapters(base: str | Path, adapters: str | Path) -> GenerativeModule:
    """Return the model whose adapters were trained on the weights of a checkpoint.

    Args:
        base: The checkpoint that the training began with.
        adapters: The file beside a checkpoint of that training, ``last.adapters.pt`` for instance.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is refused, or the adapters are those of another base.
    """
    found = read_adapters(adapters)
    own, wanted = weights_digest(read_checkpoint(base, "cpu")["state_dict"]), found[KEY]["base_sha256"]
    model = unpack(found, GenerativeModule, {}, source=str(adapters))
    if own != wanted:
        name = (found[KEY]["state"]["origin"] or {}).get("checkpoint", "another checkpoint")
        raise ValueError(
            f"adapters {adapters} belong to the weights {wanted[:12]}… of {name}, but {base} has {own[:12]}…: give the "
            "checkpoint that they were trained on"
        )
    take_weights(model, base)
    state = model.state_dict() | found["state_dict"]
    model.on_load_checkpoint({"state_dict": state, KEY: found[KEY]})
    model.load_state_dict(state)
    return model


def _check_output(output: Path) -> None:
    if output.suffix != ".ckpt":
        raise ValueError(f"output={output}: it must be a file with the ending .ckpt")
    if output.exists():
        raise ValueError(f"{output} is there already; give another output, nothing is overwritten")
    check_folder(output.parent, "output")


def _without_adapters(description: Any) -> Any:
    """Return a model's description with plain networks."""
    if isinstance(description, list | tuple):
        return type(description)(map(_without_adapters, description))
    if not isinstance(description, dict):
        return description
    return {key: None if _are_adapters(value) else _without_adapters(value) for key, value in description.items()}


def _are_adapters(description: Any) -> bool:
    is_object = isinstance(description, dict) and isinstance(description.get("class_path"), str)
    return is_object and issubclass(find(description["class_path"]), LowRankAdapters)
