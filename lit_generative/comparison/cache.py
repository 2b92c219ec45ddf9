"""Measurements that are kept: what was measured once is measured again only if what decides it has changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from lit_generative.files import write_json
from lit_generative.pictures import save_png

__all__ = ["kept"]


def kept(
    folder: Path, name: str, stamp: dict[str, Any], measure: Callable[[], tuple[dict[str, Any], dict[str, Tensor]]]
) -> dict[str, Any]:
    """Return what was measured, and measure it if it is not there yet.

    Args:
        folder: That of the comparison, with ``measured/NAME.json`` and ``pictures/NAME-KIND.png`` in it.
        name: Of what is measured.
        stamp: All that decides the values, as plain data.
        measure: Returns the values, as plain data, and pictures (C, H, W) by their kind.

    Returns:
        The values, and ``pictures``: the pictures' files, relative to the folder.
    """
    file = folder / "measured" / f"{name}.json"
    stamp = json.loads(json.dumps(stamp))  # as a file gives it back
    if file.is_file():
        found = json.loads(file.read_text())
        if found["stamp"] == stamp and all((folder / path).is_file() for path in found["values"]["pictures"].values()):
            return found["values"]
        file.unlink()
    values, pictures = measure()
    files = {kind: f"pictures/{name}-{kind}.png" for kind in pictures}
    for kind, picture in pictures.items():
        save_png(picture, folder / files[kind])
    values = values | {"pictures": files}
    write_json(file, {"stamp": stamp, "values": values})  # at last: where it is, everything is
    return values
