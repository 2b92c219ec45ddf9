"""What lies in zip and tar files, which may be hostile: looked at within bounds, and never unpacked by name."""

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from lit_generative.data.listings import File, Listing, is_by_system, is_utf8, printable
from lit_generative.data.reading import IN_TAR, IN_ZIP, cut_out
from lit_generative.files import replacing

__all__ = ["check_growth", "is_tar", "is_webdataset", "list_tar", "list_zip", "uncompressed"]

_HARMLESS = 100 * 2**20  # bytes that anything may unpack to
_GROWTH = 100  # times its size that an archive may unpack to, beyond that; images are compressed already
_MOST_MEMBERS = 5_000_000
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_OPENERS: dict[bytes, Callable[[Path], Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_BESIDE_IMAGES = {  # the endings that WebDataset gives to what belongs to an image
    *("cls", "cls2", "index", "inx", "id", "json", "jsn", "txt", "text", "transcript"),
    *("npy", "npz", "pyd", "pickle", "pkl", "pth", "pt", "ten", "tb", "mp", "msg", "cbor"),
}


def is_tar(path: Path) -> bool:
    """Whether its name is that of a tar file, compressed or not."""
    return path.name.lower().endswith(_TARS)


def check_growth(path: Path, unpacked: int, packed: int | None = None, what: str = "") -> None:
    """Refuse what unpacks to far more than itself, as a small file does that is made to fill memory or disk.

    Args:
        path: The file.
        unpacked: How many bytes it unpacks to, or has unpacked to so far.
        packed: How many bytes these are when packed; None: the whole file.
        what: A part of the file, if it is not the whole.

    Raises:
        ValueError: If it is over 100 MiB, and over a hundred times ``packed``.
    """
    if unpacked <= _HARMLESS:
        return
    packed = path.stat().st_size if packed is None else packed
    if unpacked > _GROWTH * packed:
        raise ValueError(
            f"dataset={str(path)!r}: {what or 'it'} has {packed:,} bytes and unpacks to {unpacked:,} or more, over "
            f"{_GROWTH} times as many, as no images do; if you trust it, unpack it yourself and give the folder"
        )


def list_zip(path: Path) -> Listing:
    """List the members of a zip file; their names may have been written with backslashes, as on Windows.

    Raises:
        ValueError: If it is no zip file, unpacks to far more than itself, or has names that lead out of it.
    """
    _check_name(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
    except Exception as error:  # a damaged one makes zipfile raise almost anything
        raise _damaged(path, error) from error
    check_growth(path, sum(member.file_size for member in members.values()))
    listed = []
    place = path.resolve()
    for name, member in members.items():
        check_growth(path, member.file_size, member.compress_size, name)
        kind = member.external_attr >> 16
        is_file = stat.S_ISREG(kind) or not stat.S_IFMT(kind)
        listed.append((name, f"{IN_ZIP}{name}::{place}", "" if is_file else "a link or a device"))
    return _listing(path, listed, _read_zip)


def _read_zip(file: File) -> bytes:
    member, _, path = file.address.removeprefix(IN_ZIP).rpartition("::")
    with zipfile.ZipFile(path) as archive:
        return archive.read(member)


def list_tar(path: Path, packed: Path | None = None) -> Listing:
    """List the members of a tar file that is not compressed.

    Args:
        path: The file.
        packed: The compressed file that it comes from, for messages, if there is one.

    Raises:
        ValueError: If it is no tar file, or has names that lead out of it.
    """
    _check_name(path)
    listed: list[tuple[str, str, str]] = []
    place = path.resolve()
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None and len(listed) <= _MOST_MEMBERS:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                is_plain = member.isreg() and not member.issparse()
                address = f"{IN_TAR}{member.offset_data}+{member.size}/{member.name}::{place}"
                if not member.isdir():
                    listed.append((member.name, address, "" if is_plain else "a link, a device or a sparse file"))
    except Exception as error:  # as above
        raise _damaged(packed or path, error) from error
    return _listing(packed or path, listed, lambda file: cut_out(file.address))


def _listing(path: Path, listed: Sequence[tuple[str, str, str]], read: Callable[[File], bytes]) -> Listing:
    """Sort members, given as name, address and what is wrong with them, if anything."""
    if len(listed) > _MOST_MEMBERS:
        raise ValueError(f"dataset={str(path)!r} has over {_MOST_MEMBERS:,} members; unpack it and give the folder")
    files: dict[tuple[str, ...], File] = {}
    broken = []
    for name, address, problem in listed:
        parts = _parts(path, name)
        if any(map(is_by_system, parts)):
            continue
        if not problem and not is_utf8(name):
            problem = "its name is not UTF-8"
        if problem:
            broken.append(f"{printable(name)} in {path} cannot be read ({problem})")
        else:
            files[parts] = File(address, parts)  # of several of one name the last counts, as when they are unpacked
    return Listing([files[parts] for parts in sorted(files)], broken, read)


def _parts(path: Path, name: str) -> tuple[str, ...]:
    """Cut a member's name at slashes or, as Windows writes them, backslashes."""
    parts = tuple(part for part in re.split(r"[/\\]", name) if part not in ("", "."))
    if ".." in parts or re.match(r"[/\\]|[A-Za-z]:[/\\]", name) or not parts:
        raise ValueError(
            f"dataset={str(path)!r} has the member {printable(name)!r}, whose name leads out of it; it may be hostile: "
            "make the archive anew, with plain names"
        )
    return parts


def _check_name(path: Path) -> None:
    if "::" in str(path.resolve()):
        raise ValueError(f"dataset={str(path)!r} has '::' in its path, which stands for a place in an archive; move it")


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ValueError(
        f"dataset={str(path)!r} cannot be read as an archive ({reason}); look at its permissions, or copy it anew"
    )


def is_webdataset(listing: Listing) -> bool:
    """Whether files belong together by their names up to the first dot: ``7.jpg`` and ``7.cls`` are one sample."""
    endings: dict[tuple[str, ...], set[str]] = {}
    for file in listing.files:
        stem, _, ending = file.parts[-1].partition(".")
        endings.setdefault((*file.parts[:-1], stem), set()).add(ending.rpartition(".")[2].lower())
    return any(found & _BESIDE_IMAGES and len(found) > 1 for found in endings.values())


def uncompressed(path: Path, folder: Path, identity: str) -> Path:
    """Return a tar file that is not compressed: ``path`` itself, or what is in it, written once into ``folder``.

    Args:
        path: A tar file, compressed or not.
        folder: A cache.
        identity: A digest that changes when the file does.

    Raises:
        ValueError: If it is damaged, unpacks to far more than itself, or there is no room for it.
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise _damaged(path, error) from error
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        return path
    target = folder / f"{identity}.tar"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            try:
                with opener(path) as packed, replacing(target) as scratch, scratch.open("wb") as out:
                    _unpack(path, packed, out)
            except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
                if getattr(error, "errno", None):  # of the file system
                    raise ValueError(f"dataset={str(path)!r} cannot be unpacked into {folder} ({error})") from error
                raise _damaged(path, error) from error
    return target


def _unpack(path: Path, packed: IO[bytes], out: IO[bytes]) -> None:
    written = 0
    while chunk := packed.read(2**20):
        written += len(chunk)
        check_growth(path, written)
        out.write(chunk)
