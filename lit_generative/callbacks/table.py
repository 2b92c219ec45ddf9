"""The small tables of a run's numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from lit_generative.evaluation import Evaluation

__all__ = ["print_likelihoods", "print_table"]

_IMAGES = {"val": "validation", "test": "test"}


def print_table(
    title: str,
    losses: dict[str, float],
    evaluation: Evaluation | None,
    reason: str = "",
    lines: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
) -> None:
    """Print losses (per image) and the samples' quality, each distance beside its floor.

    Args:
        title: What was measured.
        losses: Means by name, for instance "test/nelbo".
        evaluation: The samples' quality; None if it was not measured.
        reason: Why it was not.
        lines: Sentences to print below an evaluation.
        units: Those of losses by the last part of their names, for instance "nelbo".
    """
    floor = {} if evaluation is None else evaluation.protocol.get("floor", {})
    table = _numbers(title, "floor")
    for name, value in losses.items():
        table.add_row(name, f"{value:.4g}", "", (units or {}).get(name.rpartition("/")[2], ""))
    for name, value in ({} if evaluation is None else evaluation.metrics).items():
        table.add_row(name, f"{value:.4g}", f"{floor[name]:.4g}" if name in floor else "", "")
    console = Console()
    console.print(table)
    if evaluation is None:
        if reason:
            console.print(f"The quality of samples was not measured: {reason.partition('. ')[0]}.", highlight=False)
        return
    console.print("\n".join([describe_protocol(evaluation), *lines]), highlight=False)


def describe_protocol(evaluation: Evaluation) -> str:
    """Return the sentences that belong beside the numbers."""
    stamp = evaluation.protocol
    kind = _IMAGES.get(str(stamp.get("split")), "real")
    lines = [
        f"{stamp['num_fake']:,} samples against {stamp['num_real']:,} {kind} images, "
        f"{stamp['extractor']} features, weights {stamp['weights']}; the floor is that of real images."
    ]
    if evaluation.images_per_second is not None:
        evaluations = stamp.get("evaluations", 1)
        each = "one evaluation" if evaluations == 1 else f"{evaluations} evaluations"
        lines.append(f"Sampled at {evaluation.images_per_second:,.3g} images/s, {each} of the network each.")
    missing = evaluation.classes.get("missing", [])
    lines += [f"Missing classes: {', '.join(map(str, missing))}."] if missing else []
    return "\n".join([*lines, *evaluation.warnings])


def print_likelihoods(title: str, metrics: dict[str, float], protocol: dict[str, Any]) -> None:
    """Print means with their standard errors, and the protocol in a sentence.

    Args:
        title: What was measured.
        metrics: Those of :func:`~lit_generative.evaluation.likelihood.mean_likelihoods`.
        protocol: How the estimates were made.
    """
    table = _numbers(title, "stderr")
    for name, value in metrics.items():
        if (error := metrics.get(f"{name}_stderr")) is not None:
            unit = "nats" if name.endswith("nats") else "bits/dim"
            table.add_row(f"test/{name}", f"{value:.4g}", f"{error:.3g}", unit)
    console = Console()
    console.print(table)
    console.print(
        f"-log P of {protocol['num_images']:,} test images, {protocol['evaluations']} evaluations, "
        f"weights {protocol['weights']}, precision {protocol['precision']}; stderr is the means' standard error.",
        highlight=False,
    )


def _numbers(title: str, beside: str) -> Table:
    """Return an empty table of names, values, what is beside them, and units."""
    table = Table("", Column("value", justify="right"), Column(beside, justify="right"), "unit", title=title)
    table.title_justify, table.title_style = "left", "bold"
    return table
