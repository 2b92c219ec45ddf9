"""One spelling for one thing in all commands: short options, and the checkpoint by its position.

LightningCLI nests its options by the object that takes them; a short option stands for these, with the same meaning
everywhere. The long spellings are what YAML has, and keep working.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lit_generative.training.parser import take_option

__all__ = ["SHORT", "in_short", "spelled"]

_TRAINER = {
    "--device": (),  # by accelerator and devices
    "--seed": ("--seed_everything",),
    "--batch_size": ("--data.batch_size",),
    "--output": ("--trainer.default_root_dir",),
    "--precision": ("--trainer.precision",),
}
_LENGTHS = {
    "--epochs": ("--trainer.max_epochs",),
    "--minutes": ("--budget.minutes",),
    "--images": ("--budget.images",),
}
_MEASURED = {"--num_samples": ("--evaluation.num_samples",)}
_SAME_IMAGES = {  # whatever is random or large in a test
    "--seed": ("--seed_everything", "--evaluation.seed", "--likelihood.seed"),
    "--batch_size": ("--data.batch_size", "--evaluation.batch_size", "--likelihood.batch_size"),
    "--likelihood_images": ("--likelihood.num_images",),
    "--likelihood_evaluations": ("--likelihood.evaluations",),
}
SHORT: dict[str, dict[str, tuple[str, ...]]] = {
    "fit": _TRAINER | _MEASURED | _LENGTHS | {"--max_epochs": ("--trainer.max_epochs",)},
    "validate": _TRAINER,
    "test": _TRAINER | _MEASURED | _SAME_IMAGES,
    "predict": _TRAINER,
    "sample": {f"--evaluation.{name}": (f"--{name}",) for name in ("num_samples", "seed", "batch_size")},
    "compare": {
        "--evaluation.num_samples": ("--num_samples",),
        "--seed": ("--evaluation.seed",),
        "--batch_size": ("--evaluation.batch_size",),
        "--likelihood.num_images": ("--likelihood_images",),
        "--likelihood.evaluations": ("--likelihood_evaluations",),
    },
    "extractor": {
        "--batch_size": ("--data.batch_size",),
        "--max_epochs": ("--epochs",),
        "--trainer.max_epochs": ("--epochs",),
        "--trainer.precision": ("--precision",),
        "--seed_everything": ("--seed",),
    },
}
"""What an option of each command stands for."""

_TAKE_A_CHECKPOINT = ("validate", "test", "predict", "sample", "latent", "export", "edit")
_BY_POSITION = {"edit": ("--ckpt_path", "--image")}  # of the others: the checkpoint alone
_WITHOUT_VALUE = ("-h", "--help", "--print_config", "--merge_adapters", "--upscale")


def spelled(command: str, arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments as its parser spells them.

    Raises:
        ValueError: If the checkpoint is given twice or is a folder, if something belongs to no option, if a short
            option has no value, or if there is no such device.
    """
    if command == "compare" and take_option(list(arguments), "--ckpt_path") is not None:
        raise ValueError("--ckpt_path: compare takes its checkpoints by position, before all options")
    short = SHORT.get(command, {})
    result: list[str] = []
    rest = iter(_with_checkpoint(command, arguments))
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name not in short:
            result.append(argument)
            continue
        if not equals and ((value := next(rest, "--")).startswith("--")):
            raise ValueError(f"{name}: its value is missing")
        result += [f"{option}={value}" for option in short[name]] or _of_trainer(value)
    for name in ("--seed", "--seed_everything", "--evaluation.seed", "--likelihood.seed"):
        _check_seed(name, take_option(result, name))
    return result


def _check_seed(name: str, value: str | None) -> None:
    """Refuse a whole number that NumPy's generators are not seeded with; the parser sees to anything else."""
    if value is not None and value.lstrip("+-").isdecimal() and not 0 <= int(value) < 2**32:
        raise ValueError(f"{name} {value}: a seed is a whole number from 0 to {2**32 - 1}")


def in_short(command: str) -> str:
    """Return a sentence of what a command's short options stand for."""
    shown = {name: options for name, options in SHORT[command].items() if name != "--max_epochs"}
    longer = shown | {"--device": ("--trainer.accelerator",)}
    return "In short: " + ", ".join(f"{name} for {' and '.join(options)}" for name, options in longer.items()) + "."


def _of_trainer(device: str) -> list[str]:
    """Return a device, such as cuda:1, as the trainer's options."""
    kind, colon, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ValueError(f"--device {device}: use auto, cpu, cuda or cuda:N; for several, --trainer.devices")
    accelerator = [f"--trainer.accelerator={kind}"]
    return [*accelerator, f"--trainer.devices=[{index}]"] if index else [*accelerator, "--trainer.devices=1"]


def _with_checkpoint(command: str, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with what is given by position as ``--ckpt_path``."""
    positions = list(_positions(arguments)) if command in (*_TAKE_A_CHECKPOINT, "fit", "extractor") else []
    if not positions:
        _check_is_no_folder(take_option(list(arguments), "--ckpt_path"))
        return list(arguments)
    found = [arguments[i] for i in positions]
    if command not in _TAKE_A_CHECKPOINT:
        raise ValueError(f"{found[0]} belongs to no option{_meant(command, found[0])}")
    if command in _BY_POSITION:
        return _named(command, found, [a for i, a in enumerate(arguments) if i not in positions])
    if len(found) > 1:
        raise ValueError(f"{found[1]} belongs to no option; {command} takes one checkpoint, here {found[0]}")
    if twice := [argument for argument in arguments if argument.partition("=")[0] == "--ckpt_path"]:
        raise ValueError(f"the checkpoint is given twice, as {found[0]} and by {twice[0]}; give it once")
    others = [argument for i, argument in enumerate(arguments) if i not in positions]
    _check_is_no_folder(found[0])
    return [f"--ckpt_path={found[0]}", *others]


def _named(command: str, found: list[str], others: list[str]) -> list[str]:
    """Return the arguments with each that is given by position under its name; what is named already is not meant."""
    given = {argument.partition("=")[0] for argument in others}
    names = [name for name in _BY_POSITION[command] if name not in given]
    if len(found) > len(names):
        raise ValueError(f"{found[len(names)]} belongs to no option; {command} takes CKPT IMAGE before the options")
    named = [f"{name}={value}" for name, value in zip(names, found, strict=False)]
    _check_is_no_folder(take_option([*named, *others], "--ckpt_path"))
    return [*named, *others]


def _positions(arguments: Sequence[str]) -> Iterator[int]:
    """Yield the places of what is neither an option nor the value of one."""
    is_value = False
    for i, argument in enumerate(arguments):
        is_option = argument.startswith("--") or argument in ("-h", "-c")
        if not is_option and not is_value:
            yield i
        is_value = is_option and "=" not in argument and argument not in _WITHOUT_VALUE


def _check_is_no_folder(checkpoint: str | None) -> None:
    if checkpoint and Path(checkpoint).is_dir():
        last = [
            path for inside in ("checkpoints/last.ckpt", "last.ckpt") if (path := Path(checkpoint) / inside).is_file()
        ]
        hint = f"its last checkpoint is {last[0]}" if last else "give a file, such as a run's checkpoints/last.ckpt"
        raise ValueError(f"checkpoint {checkpoint} is a folder; {hint}")


def _meant(command: str, value: str) -> str:
    if command == "extractor":
        return f"; did you mean --data.dataset {value} or --output {value}?"
    is_checkpoint = value.endswith(".ckpt") or (Path(value).is_file() and Path(value).suffix not in (".yaml", ".yml"))
    return f"; did you mean {'--ckpt_path' if is_checkpoint else '--config'} {value}?"
