"""How a model was trained, by what its checkpoint and the folder of its run say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_generative.callbacks.clock import in_all
from lit_generative.checkpoints import read_checkpoint
from lit_generative.files import read_yaml
from lit_generative.report.results import Point, Training
from lit_generative.training.folder import run_folder_of

__all__ = ["read_training"]


def read_training(source: Path) -> Training | None:
    """Return how the model of a checkpoint was trained; None if there is no such file.

    The history is that of the whole run, and of those that it went on from; minutes are those until the checkpoint.
    """
    if not source.is_file():
        return None
    checkpoint = read_checkpoint(source, map_location="meta")
    clock = checkpoint.get("callbacks", {}).get("TrainingClock", {})
    is_timed = clock.get("seconds") is not None
    run = run_folder_of(source)
    versions = [] if run is None else list(map(_records, _versions(run)))
    health = [record["health"] for records in versions for record in reversed(records) if "health" in record]
    return Training(
        images=checkpoint["lit_generative"]["state"]["images_seen"],
        minutes=in_all(clock)[0] / 60 if is_timed else None,
        device_minutes=in_all(clock)[1] / 60 if is_timed else None,
        history=_history(versions),
        verdict=health[0]["verdict"] if health else None,
        is_finite=not health or health[0].get("signs", {}).get("is_finite") is not False,
    )


def _versions(run: Path) -> Iterator[Path]:
    """Yield a run's folder, and those of the runs that it was resumed from, the latest first."""
    seen: set[Path] = set()
    following: Path | None = run
    while following is not None and following not in seen:
        seen.add(following)
        yield following
        following = _resumed_from(following)


def _resumed_from(run: Path) -> Path | None:
    """Return the folder of the run whose checkpoint a run began with; None: it began anew, or that is not known.

    A run that was itself resumed goes on in its own folder, and keeps its earlier configurations there.
    """
    for config in sorted(run.glob("config*.yaml")):
        try:
            checkpoint = read_yaml(config).get("ckpt_path")
        except (ValueError, AttributeError):  # written by hand
            continue
        if isinstance(checkpoint, str):
            sibling = run.parent / Path(checkpoint).parent.parent.name  # runs may have moved
            is_sibling = sibling.is_dir() and sibling != run.parent
            before = sibling if is_sibling else run_folder_of(Path(checkpoint))
            if before is not None and before.resolve() != run.resolve():
                return before
    return None


def _records(run: Path) -> list[dict[str, Any]]:
    path = run / "evaluation.json"
    return json.loads(path.read_text()) if path.is_file() else []


def _history(versions: list[list[dict[str, Any]]]) -> list[Point]:
    """Return the evaluations on validation images, in order; where versions overlap, the later one's."""
    points: list[Point] = []
    for records in versions:
        before = points[0].images if points else None
        measured = [r for r in records if "metrics" in r and r.get("protocol", {}).get("split") == "val"]
        by_images = {r["images_seen"]: _point(r) for r in measured if before is None or r["images_seen"] < before}
        points = [by_images[images] for images in sorted(by_images)] + points
    return points


def _point(record: dict[str, Any]) -> Point:
    return Point(
        metrics=record["metrics"],
        images=record["images_seen"],
        minutes=record.get("training_minutes"),
        evaluations=record["protocol"].get("evaluations"),
        images_per_second=record.get("images_per_second"),
    )
