"""``compare``: which of several models is better at what, as a report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning import LightningDataModule

import lit_generative.training.cli  # noqa: F401  imports the families, so that checkpoints and short names resolve
from lit_generative.comparison.measure import MeasurementProtocol
from lit_generative.comparison.request import ComparisonRequest
from lit_generative.comparison.run import run_comparison
from lit_generative.data import image_data
from lit_generative.evaluation import Evaluator
from lit_generative.report.terminal import print_comparison
from lit_generative.training.parser import Parser, command_parser
from lit_generative.training.spellings import spelled

__all__ = ["compare"]

USAGE = """lit-generative compare CKPT_OR_FOLDER ... [OPTIONS]
       lit-generative compare --recipes vae/fashion gan/fashion --minutes 5 --seeds 3 [OPTIONS]"""
HOW_MEASURED = ("evaluations", "curve", "likelihood_images", "likelihood_evaluations", "device")
WHAT_COMPARED = ("checkpoints", "recipes", "names", "output", "minutes", "images", "seeds", "logger")


def compare(arguments: list[str]) -> None:
    """Measure models of any families by one protocol, on one data set, and write a report.

    Models are checkpoints, folders of images that are offered as samples, and recipes that are trained first, each for
    the same minutes. The same command goes on after a stop.
    """
    parser, given = _parser(), arguments
    arguments = spelled("compare", arguments)
    options = parser.instantiate(parser.parse_args(arguments))
    command = f"lit-generative compare {shlex.join(given)}"
    of_data, of_evaluation = passed_on(arguments, "--data"), passed_on(arguments, "--evaluation")
    request = ComparisonRequest(
        protocol=MeasurementProtocol(options.evaluation, **{name: options[name] for name in HOW_MEASURED}),
        data=image_data(options.data) if of_data else None,
        fit_options=[*of_data, *of_evaluation, "--evaluation.num_samples", str(options.num_samples)],
        command=command,
        **{name: options[name] for name in WHAT_COMPARED},
    )
    try:
        comparison = run_comparison(request)
    except (KeyboardInterrupt, SystemExit) as stop:
        if not isinstance(stop, SystemExit) or (isinstance(stop.code, int) and stop.code > 128):  # by a signal
            print(f"\ngo on with: {command}", file=sys.stderr)
        raise
    print_comparison(comparison)
    print(f"report: {options.output / 'report.html'}")


def _parser() -> Parser:
    parser = command_parser("compare", compare.__doc__, usage=USAGE)
    add = parser.add_argument
    models = "Checkpoints, and folders of images; they come before all options."
    curve = "Numbers of network evaluations at which diffusion models are measured as well."
    add("checkpoints", nargs="*", type=Path, default=[], metavar="CKPT_OR_FOLDER", help=models)
    add("--recipes", nargs="+", type=str, default=[], help="Recipes to train: names or files.")
    add("--names", nargs="+", type=str, default=[], help="What to call the models, one name each.")
    add("--num_samples", type=int, default=2000, help="Images drawn from each model.")
    add("--curve", nargs="*", type=int, default=[5, 10, 20], help=curve)
    own = {"checkpoints", "recipes", "names", "protocol", "data", "fit_options", "command"}
    parser.add_class_arguments(ComparisonRequest, skip=own, instantiate=False)
    parser.add_class_arguments(MeasurementProtocol, skip={"evaluator", "curve"}, instantiate=False)
    data = "By default the data of the first model; batch size and order are the recipes' own."
    parser.add_subclass_arguments(LightningDataModule, "data", required=False, help=data)
    parser.set_defaults({"data": {"class_path": "ImageDataModule"}})
    parser.add_class_arguments(Evaluator, "evaluation")
    parser.link_arguments("num_samples", "evaluation.num_samples")
    return parser


def passed_on(arguments: Sequence[str], option: str) -> list[str]:
    """Return an option and those below it, such as ``--data.dataset``, with their values."""
    found: list[str] = []
    is_meant = False
    for argument in arguments:
        if argument.startswith("--"):
            name = argument.partition("=")[0]
            is_meant = name == option or name.startswith(f"{option}.")
        found += [argument] if is_meant else []
    return found
