"""Files that are whole at any time."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["write_json"]


def write_json(path: Path, value: Any) -> None:
    """Write plain data; the file is replaced in one piece, so that it is whole at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.part")
    scratch.write_text(json.dumps(value, indent=2))
    os.replace(scratch, path)
