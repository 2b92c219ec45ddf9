"""Reading the command line: recipes by name, and errors of one sentence."""

import inspect
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lit_generative.description import find
from lit_generative.files import read_yaml
from lit_generative.recipes import configs_folder, resolve
from lit_generative.training.folder import run_name
from lit_generative.training.help import only_shown, shorten_classes
from lit_generative.training.names import is_class, nearest, nearest_class
from lit_generative.training.short_names import prefer_ours

__all__ = ["Parser", "command_parser", "config_files", "import_modules", "resolve_recipes", "take_option"]

prefer_ours()


def import_modules(arguments: Sequence[str]) -> list[str]:
    """Import what ``--import MODULE`` names, and return the other arguments: no checkpoint imports its own class."""
    others = list(arguments)
    while "--import" in others:
        i = others.index("--import")
        if i + 1 == len(others):
            raise ValueError("--import: name a module, for instance --import my_models")
        _import(others[i + 1])
        del others[i : i + 2]
    return others


def _import(name: str) -> None:
    try:
        import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # one that the module imports in turn
            raise
        where = "it is looked for in this folder and among what is installed"
        raise ValueError(f"--import {name}: there is no module {error.name}; {where}") from None


def resolve_recipes(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Replace the names after ``--config`` by files; return the arguments and the names that are experiments."""
    resolved, names = [], []
    is_value = False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if is_value or (option in ("--config", "-c") and equals):
            path = resolve(argument if is_value else value)
            read_yaml(path)  # a bad file ends here, before another library looks at it
            resolved.append(str(path) if is_value else f"{option}={path}")
            if (configs_folder() / "extras") not in path.parents:
                names.append(_name_of(path))
        else:
            resolved.append(argument)
        is_value = not is_value and argument in ("--config", "-c")
    return resolved, names


def config_files(arguments: Sequence[str]) -> list[Path]:
    """Return the files of options that are given by ``--config FILE`` or ``--config=FILE``."""
    found = []
    for argument, following in pairwise([*arguments, ""]):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-c") and (value or following):
            found.append(Path(value if equals else following))
    return found


def _name_of(config: Path) -> str:
    """Return what a run of a configuration is called: as the recipe, or as the run whose configuration it is."""
    if configs_folder() in config.parents:
        return config.relative_to(configs_folder()).with_suffix("").as_posix()
    return run_name(config.resolve().parent) or config.name.removesuffix(".yaml")


def take_option(arguments: list[str], option: str) -> str | None:
    """Return the last value that is given to an option, as ``option value`` or ``option=value``."""
    found = None
    for argument, following in pairwise([*arguments, ""]):
        if argument == option:
            found = following
        elif argument.startswith(f"{option}="):
            found = argument.partition("=")[2]
    return found


class Parser(LightningArgumentParser):
    """An argument parser that knows ``--import``, and whose errors are one sentence each, with the nearest names."""

    def parse_args(self, args: Any = None, *others: Any, **kwargs: Any) -> Any:
        """Parse; modules are imported before anything that may need them."""
        return super().parse_args(None if args is None else import_modules(args), *others, **kwargs)

    def format_help(self, *args: Any, topic: str | None = None, **kwargs: Any) -> str:
        """Return the help on a topic, or on all that is not put aside, without the hundreds of classes of torch."""
        with only_shown(self, topic):
            text = super().format_help(*args, **kwargs)
        return shorten_classes(text)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print what is wrong and exit with status 2."""
        if not self.exit_on_error:  # a parser within a parser, whose alternatives are still to be tried
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        print(f"lit-generative: error: {explain(message, parser)}", file=sys.stderr)
        sys.exit(2)


def command_parser(command: str, description: str | None, **options: Any) -> Parser:
    """Return a parser for a command besides those of LightningCLI."""
    return Parser(prog=f"lit-generative {command}", description=description or "", allow_abbrev=False, **options)


def explain(message: str, parser: LightningArgumentParser) -> str:
    """Shorten jsonargparse's nested report to the option it is about, its innermost reason and the nearest names."""
    path = ""
    for key in re.findall(r'Parser key "([^"]+)"', message):
        path = path if path.endswith(f".{key}") else f"{path}.{key}".lstrip(".")
    if "is abstract" in message:
        return f"--{path}: its class is missing, which comes before its options: --{path} CLASS"
    if found := re.search(r"Subcommand '(\w+)' does not accept option '([^']+)'", message):
        known = [option[2:] for option in parser._option_string_actions if option.startswith("--")]
        return f"--config: {found[1]} has no option {found[2]}{nearest(found[2], known)}"
    if "Unexpected config" in message:
        return "--config: a file of options has lines of the form `name: value`; this one holds something else"
    if found := re.search(r"Option '([^']+)' is not accepted(?:.*?class_path='([^']+)')?", message):
        before = re.findall(_CLASS, message[: found.start()])
        name, owner = found[1], found[2] or (before[-1] if before else "")
        return f"--{path}.{name}: {owner} has no such option{nearest(name, _parameters(owner))}"
    if found := re.search(r"Expected a path but (\S+) either|Expected a dot import path string: (\S+)", message):
        name = found[1] or found[2]
        if re.search(r"Expected an? <class '(int|float)'>", message):
            return f"--{path} {name}: expected a number{', and nan is none' if name.lower() == 'nan' else ''}"
        if is_class(name.rpartition(".")[2]):
            return f"--{path} {name}: that is a class of another kind than this option takes"
        owner = ["", *re.findall(_CLASS, message)][-1]
        return f"--{path} {name}: there is no such class{nearest_class(name, owner, path.rpartition('.')[2])}"
    if found := re.search(r"[Uu]nrecognized arguments: (.*)", message):
        known = [option for option in parser._option_string_actions if not option.endswith(("help", "_shtab"))]
        hint = nearest(found[1].split()[0], known, cutoff=0.6) or "; --help lists the options"
        return f"unknown option {found[1]}{hint}"
    if found := re.search(r"argument (\S+): expected one argument", message):
        return f"{found[1]}: its value is missing"
    if found := re.search(r"the following arguments are required: (.*)", message):
        positional = {a.dest: str(a.metavar) for a in parser._actions if a.metavar and not a.option_strings}
        names = found[1].split(", ")
        positional |= {"ckpt_path": "CKPT", "image": "IMAGE"}
        missing = [f"--{path}.{name}" if path else positional.get(name, f"--{name}") for name in names]
        hint = "; recipes have them all: lit-generative recipes" if "--model" in missing[0] else ""
        return f"missing {', '.join(missing)}{hint}"
    if path and (kinds := _expected(message)):
        given = re.search(r"(?:Got value|Given value): (?!Namespace|NestedArg)(.*)", message)
        return f"--{path}{' ' + given[1] if given else ''}: expected {kinds}"
    reasons = [line.strip(" -") for line in message.splitlines() if not re.search(_WRAPPING, line) and line.strip(" -")]
    return f"--{path}: {reasons[0]}" if path and reasons else " ".join(reasons or message.split())


_CLASS = r"Problem with given class_path '([^']+)'"
_WRAPPING = r"Parser key|Does not validate|Subtypes:|Errors:|NoneType|Given value|Problem with given class_path"


def _expected(message: str) -> str:
    """Return the kinds of value that jsonargparse names, in words."""
    kinds = re.findall(r"Expected an? (.+?)(?:\. Got value: .*)?$", message, flags=re.MULTILINE)
    words = [re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", kind) for kind in dict.fromkeys(kinds)]
    words = [re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", word) for word in words if word != "NoneType"]
    return " or ".join(words)


def _parameters(class_path: str) -> list[str]:
    try:
        return list(inspect.signature(find(class_path)).parameters)
    except (ImportError, TypeError, ValueError):
        return []
