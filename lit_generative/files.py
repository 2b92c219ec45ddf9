"""Files that are whole at any time, whatever kills the process or fills the disk."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

__all__ = ["check_folder", "file_digest", "make_folder", "read_yaml", "replacing", "write_json"]

MOST_NODES = 100_000  # in a YAML file, aliases followed


def make_folder(folder: Path, argument: str) -> None:
    """Make a folder, if it is not there, and see that files can be written into it: before any long work.

    Args:
        folder: Which.
        argument: Its name, for the error.

    Raises:
        ValueError: If it cannot be made or written to: no permission, a file in its place, a full disk, a long name.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)  # some file systems have names left, but no blocks
            file.flush()
    except OSError as error:
        raise ValueError(f"{argument}={folder}: nothing can be written there: {error.strerror}; give another") from None


def check_folder(folder: Path, argument: str) -> None:
    """See that a folder can be made and written to, as :func:`make_folder` does, and leave no trace."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    make_folder(folder, argument)
    for path in new:
        path.rmdir()


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


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; it may be larger than the memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**24):
            digest.update(part)
    return digest.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write plain data; the file is replaced in one piece."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2))


def read_yaml(path: Path) -> Any:
    """Read plain data.

    Raises:
        ValueError: If it is no YAML, or holds too much: by aliases of aliases, a few lines can be billions of values.
    """
    try:
        text = path.read_text()
        if _count_nodes(yaml.compose(text, yaml.CSafeLoader), {}) > MOST_NODES:
            raise ValueError(f"{path} is refused: it has more than {MOST_NODES:,} values")
        return yaml.load(text, yaml.CSafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" at line {mark.line + 1}: {getattr(error, 'problem', '')}"
        raise ValueError(f"{path} is not valid YAML{where}") from None


def _count_nodes(node: yaml.Node | None, counted: dict[int, int]) -> int:
    """Count the values below a node, each as often as it is meant."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in counted:
        counted[id(node)] = MOST_NODES  # for one that is within itself
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        counted[id(node)] = 1 + sum(_count_nodes(part, counted) for part in parts)
    return counted[id(node)]
