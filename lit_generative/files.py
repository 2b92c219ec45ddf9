"""Files that are whole at any time, whatever kills the process or fills the disk."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["replacing", "write_json"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch path beside ``path``, whose file takes the place of ``path`` at the end, in one piece.

    Until then ``path`` is what it was; after an error it stays so. The scratch is on the same file system, since only
    there a rename is one step, and is on the disk before it is renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{path.name}.part")
    try:
        yield scratch
        _sync(scratch)
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; some file systems cannot say so of folders."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write plain data; the file is replaced in one piece."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2))
