"""``compare``: which of several models is better at what, as a report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from lightning import LightningDataModule
from lightning.pytorch.loggers import Logger
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

import lit_generative.training.cli  # noqa: F401  imports the families, so that checkpoints and short names resolve
from lit_generative.commands.tools import device_named
from lit_generative.comparison.cache import Protocol
from lit_generative.comparison.run import Request, run_comparison
from lit_generative.evaluation import Evaluator
from lit_generative.loggers import log_picture, log_table
from lit_generative.report.results import Comparison
from lit_generative.report.statistics import SPREADS
from lit_generative.report.summary import FLOOR, Cell, summarise
from lit_generative.training.parser import Parser

__all__ = ["compare"]

USAGE = """lit-generative compare CKPT_OR_FOLDER ... [OPTIONS]
       lit-generative compare --recipes vae/fashion gan/fashion --minutes 5 --seeds 3 [OPTIONS]"""
DESCRIPTION = """Measure models of any families by one protocol, on one data set, and write a report. Models are
checkpoints, folders of images that are offered as samples, and recipes that are trained first, each for the same
minutes. The same command goes on after a stop."""


def compare(arguments: list[str], given: Sequence[str] | None = None) -> int:
    """Run ``lit-generative compare``.

    Args:
        arguments: The command's options.
        given: The options as they were typed, for the command line that goes on.
    """
    parser = _parser()
    options = parser.instantiate_classes(parser.parse_args(arguments))
    command = f"lit-generative compare {shlex.join(arguments if given is None else given)}"
    request = Request(
        checkpoints=[Path(path) for path in options.checkpoints],
        recipes=options.recipes,
        names=options.names,
        minutes=options.minutes,
        seeds=options.seeds,
        output=options.output,
        protocol=Protocol(
            options.evaluation,
            options.evaluations,
            options.curve,
            options.likelihood_images,
            device_named(options.device),
        ),
        data=options.data if passed_on(arguments, "--data") else None,
        fit_options=[
            *passed_on(arguments, "--data"),
            *passed_on(arguments, "--evaluation"),
            *("--evaluation.num_samples", str(options.num_samples)),
        ],
        command=command,
    )
    try:
        comparison = run_comparison(request)
    except (KeyboardInterrupt, SystemExit) as stop:
        if not isinstance(stop, SystemExit) or stop.code == 1:  # Lightning turns Ctrl-C into it
            print(f"\ngo on with: {command}", file=sys.stderr)
        raise
    if options.logger is not None:
        log_comparison(options.logger, comparison, options.output)
    print_comparison(comparison)
    print(f"report: {options.output / 'report.html'}")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="lit-generative compare", allow_abbrev=False, usage=USAGE, description=DESCRIPTION)
    add = parser.add_argument
    models = "Checkpoints, and folders of images; they come before all options."
    add("checkpoints", nargs="*", type=str, default=[], metavar="CKPT_OR_FOLDER", help=models)
    add("--recipes", nargs="+", type=str, default=[], help="Recipes to train: names or files.")
    add("--names", nargs="+", type=str, default=[], help="What to call the models, one name each.")
    add("--output", type=Path, default=Path("runs/comparison"), help="The folder of trainings, numbers and report.")
    add("--minutes", type=float, default=5.0, help="Of training, for each recipe and seed; evaluation comes on top.")
    add("--seeds", type=int, default=1, help="How many seeds each recipe is trained with: 0, 1, ...")
    add("--num_samples", type=int, default=2000, help="Images drawn from each model.")
    evaluations = "The most network evaluations a sample of a diffusion model; null: as its sampler has it."
    add("--evaluations", type=int | None, default=20, help=evaluations)
    curve = "Numbers of network evaluations at which diffusion models are measured as well."
    add("--curve", nargs="*", type=int, default=[5, 10, 20], help=curve)
    likelihood = "Test images whose likelihood is estimated, of models that define one; 0: none."
    add("--likelihood_images", type=int, default=200, help=likelihood)
    add("--device", type=str, default="auto", help="Where to measure: cpu, cuda:1; auto: the GPU if there is one.")
    logger = "Where tables and plots go as well, for instance lit_generative.loggers.WandbLogger."
    add("--logger", type=Logger | None, default=None, help=logger)
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


def log_comparison(logger: Logger, comparison: Comparison, folder: Path) -> None:
    """Give a logger the tables and plots of a comparison."""
    for table in summarise(comparison):
        rows = [[row.name, row.runs, *(cell.text for cell in row.cells)] for row in table.rows]
        log_table(logger, table.title, ["model", "runs", *table.headings], rows)
    for path in sorted(folder.glob("plots/*.png")):
        log_picture(logger, path.stem, path)
    logger.finalize("success")


def print_comparison(comparison: Comparison) -> None:
    """Print the tables as one: a line for each number, a column for each model, what is best in bold."""
    models = [FLOOR, *comparison.by_name()]
    columns = [Column("real images" if name == FLOOR else name, overflow="fold") for name in models]
    table = Table(Column("", max_width=28), *columns, box=SIMPLE_HEAD, pad_edge=False)
    for summary in summarise(comparison):
        table.add_section()
        cells = {row.name: row.cells for row in summary.rows}
        for i, heading in enumerate(summary.headings):
            found = [cells[name][i] if name in cells else Cell("") for name in models]
            table.add_row(heading, *(f"[bold]{cell.text}[/bold]" if cell.is_best else cell.text for cell in found))
    console = Console()
    console.print(table)
    console.print(SPREADS, highlight=False)
