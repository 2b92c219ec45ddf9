"""What lies in a folder: files and where they are below it, and what cannot be read, without following loops."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["File", "Listing", "common_parts", "is_by_system", "is_utf8", "list_folder", "printable"]

_BY_SYSTEMS = {  # what operating systems, storage devices and programs leave in folders of images
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "lost+found", "system volume information"),
    *("@eadir", "#recycle", "@recycle", "@__thumb", "$recycle.bin", "#snapshot"),
}


@dataclass(frozen=True)
class File:
    """A file: its ``address``, which :mod:`~.reading` opens, and the ``parts`` of its path below the folder."""

    address: str
    parts: tuple[str, ...]

    @property
    def suffix(self) -> str:
        """The ending, in small letters."""
        stem, dot, ending = self.parts[-1].rpartition(".")
        return f".{ending.lower()}" if stem and dot else ""


@dataclass(frozen=True)
class Listing:
    """What there is in a folder or archive, sorted, without hidden files and those that systems make.

    Args:
        files: Regular files.
        broken: Sentences about what is there but cannot be read, each naming it.
        read: Returns the content of one of ``files``.
    """

    files: list[File]
    broken: list[str] = field(default_factory=list)
    read: Callable[[File], bytes] = lambda file: Path(file.address).read_bytes()


def list_folder(folder: Path) -> Listing:
    """List all files below ``folder``; symbolic links are followed, but never into a folder that they lie in."""
    files: list[File] = []
    broken: list[str] = []
    for entry, parts, problem in _walk(folder, (), frozenset()):
        if problem:
            broken.append(f"{printable(entry)} cannot be read ({problem})")
        else:
            files.append(File(entry, parts))
    return Listing(sorted(files, key=lambda file: file.parts), broken)


def _walk(
    folder: Path, above: tuple[str, ...], ancestors: frozenset[tuple[int, int]]
) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield path, parts and what is wrong with it, if anything, of all below ``folder``."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield str(folder), above, error.strerror or type(error).__name__
        return
    ancestors |= {(status.st_dev, status.st_ino)}
    for entry in entries:
        if is_by_system(entry.name):
            continue
        parts = (*above, entry.name)
        kind = _kind(entry, ancestors)
        if kind == "folder":
            yield from _walk(Path(entry.path), parts, ancestors)
        else:
            yield entry.path, parts, "" if kind == "file" else kind


def _kind(entry: os.DirEntry[str], ancestors: frozenset[tuple[int, int]]) -> str:
    """Return ``file``, ``folder``, or what is wrong."""
    if not is_utf8(entry.name):
        return "its name is not UTF-8; rename it"
    try:
        if entry.is_dir():
            status = entry.stat()
            is_loop = entry.is_symlink() and (status.st_dev, status.st_ino) in ancestors
            return "a link to a folder that it lies in" if is_loop else "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError as error:
        is_dangling = isinstance(error, FileNotFoundError) and entry.is_symlink()
        return "a link to nothing" if is_dangling else error.strerror or type(error).__name__
    return "neither a file nor a folder"


def is_utf8(name: str) -> bool:
    """Whether a name is text, which can be written anywhere."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_by_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by an operating system."""
    return name.startswith(".") or name.lower() in _BY_SYSTEMS


def common_parts(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the first parts that all paths have in common."""
    ends = zip(min(paths), max(paths), strict=False)
    return tuple(first for first, last in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))


def printable(path: str) -> str:
    """Return a path, with what is not UTF-8 in it as escapes."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
