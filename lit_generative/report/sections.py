"""What the report's texts show besides tables and sentences: drawn plots, pictures, and what is left out."""

import dataclasses

from lit_generative.report.results import Comparison

__all__ = ["Gallery", "Illustration", "Parts", "facts", "warnings"]


@dataclasses.dataclass(frozen=True)
class Illustration:
    """A plot, drawn: SVG files for light and for dark surroundings."""

    name: str
    title: str
    caption: str
    light: bytes
    dark: bytes


@dataclasses.dataclass(frozen=True)
class Gallery:
    """A picture of each model, as PNG files by the models' names."""

    name: str
    title: str
    caption: str
    images: dict[str, bytes]


@dataclasses.dataclass
class Parts:
    """All of them, and sentences on those that are absent."""

    plots: list[Illustration] = dataclasses.field(default_factory=list)
    galleries: list[Gallery] = dataclasses.field(default_factory=list)
    absent: list[str] = dataclasses.field(default_factory=list)


def facts(comparison: Comparison) -> dict[str, str]:
    """Return the protocol that the runs share, as text by name; what differs between models is said for each."""
    found: dict[str, str] = {}
    stamps = {name: runs[0].protocol for name, runs in comparison.by_name().items()}
    for key in dict.fromkeys(key for stamp in stamps.values() for key in stamp):
        if key in ("floor", "classes"):  # the tables' first row
            continue
        values = {name: _written(stamp.get(key)) for name, stamp in stamps.items()}
        if len(set(values.values())) == 1:
            found[key] = next(iter(values.values()))
        else:
            found[key] = "; ".join(f"{name}: {value}" for name, value in values.items())
    return found


def _written(value: object) -> str:
    """Return plain data as a text without quotes and braces; of an object's description its class and arguments."""
    if isinstance(value, dict) and "class_path" in value:
        arguments = _written(value.get("init_args") or {})
        return f"{value['class_path'].rpartition('.')[2]}({arguments})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_written(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return " × ".join(map(_written, value))
    return "none" if value is None else str(value)


def warnings(comparison: Comparison) -> list[str]:
    """Return each warning once, with the names of the models that it concerns if it does not concern all."""
    groups = comparison.by_name()
    concerned: dict[str, dict[str, None]] = {}
    for run in comparison.runs:
        for warning in run.warnings:
            concerned.setdefault(warning, {})[run.name] = None
    return [
        warning if len(names) == len(groups) > 1 else f"{', '.join(names)}: {warning}"
        for warning, names in concerned.items()
    ]
