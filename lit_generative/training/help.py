"""The help of a command: this package's options first, Lightning's own by ``--trainer.help``."""

import argparse
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import lightning as L

__all__ = ["only_shown", "put_aside", "shorten_classes"]

LIGHTNINGS = {
    "trainer": "List the options of Lightning's trainer: --trainer.max_epochs, --trainer.max_steps, "
    "--trainer.max_time, --trainer.precision, --trainer.devices, --trainer.logger, --trainer.callbacks and more.",
    "checkpoint": "List the options of Lightning's ModelCheckpoint, which keeps best.ckpt: --checkpoint.monitor, "
    "--checkpoint.mode and more.",
}
"""What the help puts aside, and how it says so."""

TITLES = {
    "trainer": "Lightning's trainer",
    "checkpoint": "Lightning's ModelCheckpoint, which keeps best.ckpt",
    "model": "The model",
    "data": "The data",
    "evaluation": "How samples are measured",
    "evaluate": "When samples are measured",
    "likelihood": "How the likelihood of test images is estimated",
    "grid": "Pictures of samples while training",
    "budget": "How long a training is, in minutes or images",
}
REWORDED = {  # in the commands of LightningCLI
    "ckpt_path": "The checkpoint: fit goes on from it, other commands work on its model.",
    "config": "A recipe's name or a YAML file; several are merged from left to right.",
    "print_config": "Print the whole configuration and exit.",
    "seed_everything": "The seed of weights, noise and order; true: a random one.",
    "model": "The class of the model, such as VAE, GAN, DDPM or my_file.MyModel; recipes have it.",
    "data": "The class of the data module.",
    "evaluation.extractor": "What sees the images: auto, fashion, random, imagenet, inception, clip, dinov2, one "
    "with its file as in inception:FILE.pth, or a file that `lit-generative extractor` wrote.",
    "return_predictions": argparse.SUPPRESS,  # nothing here would take them
    "weights_only": argparse.SUPPRESS,  # checkpoints are never read otherwise here
    "evaluation": argparse.SUPPRESS,  # a file of these options alone
    "evaluate": argparse.SUPPRESS,
    "likelihood": argparse.SUPPRESS,
    "grid": argparse.SUPPRESS,
    "budget": argparse.SUPPRESS,
    "verbose": argparse.SUPPRESS,  # there is one table, not two
}
_OF_TRAINERS_METHODS = [
    str(inspect.getdoc(getattr(L.Trainer, name))).splitlines()[0].rstrip(".")
    for name in ("fit", "validate", "test", "predict")
]


class TopicHelp(argparse.Action):
    """The option ``--TOPIC.help``: it lists what the help puts aside, and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None, **_: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)
        self.topic = option_strings[0].removeprefix("--").removesuffix(".help")

    def __call__(self, parser: Any, *_: Any) -> NoReturn:
        """Print it and exit."""
        print(parser.format_help(topic=self.topic))
        sys.exit(0)


def put_aside(parser: Any) -> None:
    """Leave the options of Lightning's own classes out of the help, and list them by ``--trainer.help``."""
    for topic, about in LIGHTNINGS.items():
        if topic in parser.groups:
            parser.add_argument(f"--{topic}.help", action=TopicHelp, help=about)


@contextmanager
def only_shown(parser: Any, topic: str | None) -> Iterator[None]:
    """Let the help be that of one topic; None: of all that is neither put aside nor filled in from elsewhere."""
    reworded = REWORDED if "trainer" in parser.groups else {}
    aside = [action.topic for action in parser._actions if isinstance(action, TopicHelp)]
    actions = [action for group in parser._action_groups for action in group._group_actions]
    groups = [(parser.groups[name], title) for name, title in TITLES.items() if name in parser.groups]
    groups += [(group, "The checkpoint") for group in parser._action_groups if group.title in _OF_TRAINERS_METHODS]
    before = [(action, action.help) for action in actions], [(group, group.title) for group, _ in groups]
    for action in actions:
        its_topic = next((name for name in aside if f"{action.dest}.".startswith(f"{name}.")), None)
        is_linked = type(action).__name__ == "ActionLink"
        action.help = reworded.get(action.dest, action.help)
        if is_linked or its_topic != topic:
            action.help = argparse.SUPPRESS
    for group, title in groups:
        group.title = title
    try:
        yield
    finally:
        for action, text in before[0]:
            action.help = text
        for group, title in before[1]:
            group.title = title


def shorten_classes(text: str) -> str:
    """Keep the names of this package's classes that an option would take, and of a long list those of networks."""
    return re.sub(r"\s*known\s+subclasses:\s+([^()]*)\)", _shorten, text)


def _on_new_lines(text: str) -> str:
    """Return a text as lines of its own, where argparse has the help of an option."""
    return "\n" + textwrap.fill(text, 78, initial_indent=" " * 24, subsequent_indent=" " * 24)


def _shorten(listing: re.Match[str]) -> str:
    names = re.sub(r"(\.)\s+|\s+", r"\1", listing[1]).split(",")
    ours = [name for name in names if name.startswith("lit_generative.")] or names
    if len(ours) < 20:
        return _on_new_lines(f"known subclasses: {', '.join(name.rpartition('.')[2] for name in ours)})")
    networks = [name.rpartition(".")[2] for name in names if re.fullmatch(r"lit_generative\.nn\.\w+", name)]
    return _on_new_lines(f"for instance {', '.join(networks or names[:5])})")
