"""``evaluate``: the whole protocol for one set of samples and one of real images, wherever they come from."""

import shlex
from pathlib import Path

import lit_generative.training.cli  # noqa: F401  imports the families, so that checkpoints resolve
from lit_generative.comparison.evaluate import evaluate_samples
from lit_generative.report.terminal import print_comparison
from lit_generative.training.parser import command_parser

__all__ = ["evaluate"]


def evaluate(arguments: list[str]) -> None:
    """Compare samples with real images: folders, archives, data sets or checkpoints.

    Distances, precision and recall, density and coverage, sharpness and copies, each beside what real images reach, as
    a table, as JSON and as one HTML page.
    """
    parser = command_parser("evaluate", evaluate.__doc__, usage="lit-generative evaluate SAMPLES --real REAL [OPTIONS]")
    what = "A folder of images, an archive, a data set or a checkpoint."
    parser.add_argument("samples", type=str, metavar="SAMPLES", help=what)
    parser.add_function_arguments(evaluate_samples, skip={"samples", "download", "command"})
    parser.add_argument(
        "--download", action="store_true", help="Fetch weights of the extractor that are not in the cache."
    )
    options = parser.instantiate(parser.parse_args(arguments)).as_dict()
    comparison = evaluate_samples(**options, command=f"lit-generative evaluate {shlex.join(arguments)}")
    print_comparison(comparison)
    for warning in comparison.runs[0].warnings:
        print(warning)
    print(f"report: {Path(options['output']) / 'report.html'}")
