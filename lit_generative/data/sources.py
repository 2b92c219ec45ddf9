"""Where images come from: whatever is named becomes tables of Hugging Face ``datasets``, one for each split."""

import dataclasses
import difflib
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_generative.data.archives import check_growth, is_tar, is_webdataset, list_tar, list_zip, uncompressed
from lit_generative.data.folders import image_tables, is_image
from lit_generative.data.idx import find_idx, idx_table
from lit_generative.data.listings import Listing, is_utf8, list_folder, printable

if TYPE_CHECKING:  # importing datasets takes a second; only those who open data pay for it
    import datasets

__all__ = ["EMBEDDED", "Source", "open_source"]

EMBEDDED = {"fashion-mnist": Path(__file__).parent / "fashion_mnist"}
"""The sets in this package: name and folder of Parquet files, one for each split."""

_FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}


@dataclass(frozen=True)
class Source:
    """An opened set of images.

    Args:
        name: A short name for run folders and reports.
        identity: A hex digest that changes when the data do.
        tables: A ``datasets.Dataset`` (``IterableDataset`` when streaming) for each split.
        skipped: Files that were left out because they are no images.
        skipped_first: Why, of the first of them.
    """

    name: str
    identity: str
    tables: "dict[str, datasets.Dataset | datasets.IterableDataset]"
    skipped: int = 0
    skipped_first: str = "they cannot be read"


def open_source(
    dataset: str,
    *,
    config_name: str | None,
    revision: str | None,
    streaming: bool,
    skip_unreadable: bool,
    split_names: Iterable[str | None] = (),
) -> Source:
    """Open what ``dataset`` names.

    Args:
        dataset: An embedded set's name, a path (folder of images or of IDX files, Parquet, Arrow, zip or tar file, or a
            folder of such), or the hub id ``owner/name``.
        config_name: The configuration of a hub data set.
        revision: The branch, tag or commit of a hub data set.
        streaming: Whether to read while training instead of downloading and preparing first.
        skip_unreadable: Whether files in a folder that are no images are left out; they are an error otherwise.

        split_names: The user's names of splits, for folders that would not be taken for some.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If an embedded name is unknown, a folder holds no images, or the hub does not give the data.
    """
    path = _find_path(dataset)
    is_hub_id = dataset.count("/") == 1 and not dataset.startswith((".", "/", "~")) and not dataset.endswith("/")
    if dataset in EMBEDDED or path.exists():
        _refuse_hub_options(dataset, config_name, revision)
    if dataset in EMBEDDED:
        return _open_embedded(dataset, streaming)
    if path.exists():
        return _open_path(path, _Options(streaming, skip_unreadable, tuple(filter(None, split_names))))
    if is_hub_id:
        return _open_hub(dataset, config_name, revision, streaming)
    if os.sep in dataset or path.suffix:
        raise FileNotFoundError(f"dataset={dataset!r}: there is no such file or folder")
    nearest = difflib.get_close_matches(dataset, EMBEDDED, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(
        f"dataset={dataset!r} is neither an embedded set nor a path{hint} "
        f"(embedded sets: {', '.join(EMBEDDED)}; or give a hub id owner/name, a folder of images or a file)"
    )


def _find_path(dataset: str) -> Path:
    """The path that is meant, whether or not there is something."""
    try:
        path = Path(dataset).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # no permission, a name too long, no such user
        raise ValueError(
            f"dataset={dataset!r} cannot be looked up ({getattr(error, 'strerror', None) or error}); give another path"
        ) from error
    return path


def _open_embedded(name: str, streaming: bool) -> Source:
    import datasets
    import pyarrow.parquet

    if streaming:
        raise ValueError(f"streaming=True, but {name} is a few megabytes that lie in this package; leave it out")
    files = sorted(EMBEDDED[name].glob("*.parquet"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    # Reading the table ourselves spares the copy that Dataset.from_parquet would put into the user's cache
    tables: Any = {file.stem: datasets.Dataset(pyarrow.parquet.read_table(file)) for file in files}
    return Source(name, digest, tables)


@dataclass(frozen=True)
class _Options:
    streaming: bool
    skip_unreadable: bool
    split_names: tuple[str, ...]


def _open_path(path: Path, options: _Options) -> Source:
    if not is_utf8(str(path.resolve())):
        raise ValueError(f"dataset={printable(str(path))!r} has a name that is not UTF-8; rename it")
    if path.is_dir():
        return _open_folder(path, options)
    if not path.is_file():
        raise ValueError(f"dataset={str(path)!r} is neither a file nor a folder")
    if path.suffix.lower() == ".zip":
        return _open_zip(path, options)
    if is_tar(path):
        return _open_tar(path, options)
    return _open_files(path, [path], options.streaming)


def _open_folder(path: Path, options: _Options) -> Source:
    listing = list_folder(path)
    files = [Path(file.address) for file in listing.files]
    if not files:
        raise ValueError(
            f"dataset={str(path)!r} is an empty folder{f' ({listing.broken[0]})' if listing.broken else ''}; put "
            "images into it, in a subfolder for each class"
        )
    if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
        return _open_saved(path, files, options.streaming)
    tables = [file for file in files if file.suffix.lower() in _FORMATS]
    if tables and not any(map(is_image, listing.files)):
        return _open_files(path, tables, options.streaming)
    _refuse_streaming(path, options.streaming)
    if idx := find_idx(files):
        splits: Any = {split: idx_table(parts) for split, parts in idx.items()}
        return Source(path.resolve().name, _identity(path, files), splits)
    return _open_images(path, path.resolve().name, listing, _identity(path, files), options)


def _open_zip(path: Path, options: _Options) -> Source:
    _refuse_streaming(path, options.streaming)
    return _open_images(path, path.stem, list_zip(path), _identity(path.parent, [path]), options)


def _open_tar(path: Path, options: _Options) -> Source:
    import datasets

    identity = _identity(path.parent, [path])
    plain = uncompressed(path, Path(datasets.config.EXTRACTED_DATASETS_PATH), identity)
    listing = list_tar(plain, path)
    if is_webdataset(listing):
        if plain != path:
            _refuse_streaming(path, options.streaming)
        return dataclasses.replace(_open_files(plain, [plain], options.streaming), name=_stem(path), identity=identity)
    _refuse_streaming(path, options.streaming)
    return _open_images(path, _stem(path), listing, identity, options)


def _stem(path: Path) -> str:
    return path.name[: -len("".join(path.suffixes[-2:]))] if path.stem.lower().endswith(".tar") else path.stem


def _open_images(path: Path, name: str, listing: Listing, identity: str, options: _Options) -> Source:
    tables, problems = image_tables(path, listing, options.skip_unreadable, options.split_names)
    return Source(name, identity, tables, len(problems), *problems[:1])


def _refuse_streaming(path: Path, streaming: bool) -> None:
    if streaming:
        raise ValueError(
            f"streaming=True is for hub ids and for Parquet, Arrow and tar files; {path} need not be streamed"
        )


def _open_saved(path: Path, files: Sequence[Path], streaming: bool) -> Source:
    """Open what ``datasets``' own ``save_to_disk`` wrote."""
    import datasets

    try:
        saved = datasets.load_from_disk(path)
    except Exception as error:  # as below
        raise ValueError(f"dataset={str(path)!r} cannot be read ({_reason(error)})") from error
    tables = dict(saved) if isinstance(saved, datasets.DatasetDict) else {"train": saved}
    if streaming:
        tables = {split: table.to_iterable_dataset() for split, table in tables.items()}
    return Source(path.resolve().name, _identity(path, files), tables)


def _open_files(path: Path, files: Sequence[Path], streaming: bool) -> Source:
    import datasets

    formats = {file.suffix: _FORMATS.get(file.suffix.lower()) for file in files}
    if len(formats) > 1 or None in formats.values():
        raise ValueError(
            f"dataset={str(path)!r} has the ending {' and '.join(sorted(formats))}; "
            f"what can be read: a folder, zip or tar file of images, or files of one of the kinds {', '.join(_FORMATS)}"
        )
    (kind,) = formats.values()
    if kind == "parquet":
        for file in files:
            _check_parquet(file)
    if kind == "webdataset" and path.is_dir():
        _check_shard(files[0])
    where = {"data_dir": str(path)} if path.is_dir() else {"data_files": str(path)}
    name = path.resolve().name if path.is_dir() else path.stem
    try:
        tables = datasets.load_dataset(kind, streaming=streaming, **where)
    except Exception as error:  # datasets and the readers below it raise a dozen kinds
        raise ValueError(f"dataset={str(path)!r} cannot be read ({_reason(error)})") from error
    return Source(name, _identity(path, files), dict(tables))


def _check_shard(file: Path) -> None:
    listing = list_tar(file)
    if not is_webdataset(listing) and any(len(member.parts) > 1 for member in listing.files):
        raise ValueError(
            f"dataset={str(file.parent)!r}: {file.name} has folders of images; give one such file, not several"
        )


def _check_parquet(file: Path) -> None:
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_metadata(file)
        unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"dataset={str(file)!r} cannot be read ({_reason(error)})") from error
    check_growth(file, unpacked)


def _open_hub(dataset: str, config_name: str | None, revision: str | None, streaming: bool) -> Source:
    import datasets

    try:
        builder = datasets.load_dataset_builder(dataset, name=config_name, revision=revision)
        tables = datasets.load_dataset(dataset, name=config_name, revision=revision, streaming=streaming)
    except Exception as error:  # as above, and the hub's client and the network
        raise ValueError(
            f"dataset={dataset!r}: there is no such path here, and it cannot be loaded from the Hugging Face hub "
            f"({_reason(error)})"
        ) from error
    identity = hashlib.sha256(f"{dataset} {builder.config.name} {builder.hash}".encode()).hexdigest()
    return Source(dataset, identity, dict(tables))


def _reason(error: BaseException) -> str:
    """An error in one line: the first two of its message, which in ``datasets`` name what there is to choose from."""
    if type(error).__name__ == "DatasetGenerationError" and error.__cause__:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).strip().splitlines()[:2])}"


def _identity(root: Path, files: Iterable[Path]) -> str:
    """A digest of names, sizes and times of change, since reading all content would take long."""
    stats = [(str(file.relative_to(root)), file.stat()) for file in sorted(files)]
    listing = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def _refuse_hub_options(dataset: str, config_name: str | None, revision: str | None) -> None:
    for argument, value in {"config_name": config_name, "revision": revision}.items():
        if value is not None:
            raise ValueError(f"{argument}={value!r} is for data sets of the hub, but {dataset!r} is not from there")
