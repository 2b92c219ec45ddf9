"""What ``metadata.csv``, ``.jsonl`` or ``.parquet`` say of images, labels above all, as in ``imagefolder``."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from lit_generative.data.listings import File, Listing

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Metadata", "is_metadata"]

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_FILE_NAME = "file_name"


def is_metadata(file: File) -> bool:
    """Whether it is a table about the images in its folder and below."""
    return file.parts[-1].lower() in _NAMES


@dataclass(frozen=True)
class Metadata:
    """What the tables in a folder or archive say of its images.

    Args:
        table: All their rows.
        rows: Which row is an image's, by the parts of the image's path.
        origins: Which file has the row.
    """

    table: "pa.Table"
    rows: dict[tuple[str, ...], int]
    origins: list[str]

    @classmethod
    def read(cls, listing: Listing) -> "Metadata | None":
        """Read all tables; None if there are none.

        Raises:
            ValueError: If one is damaged, has no column ``file_name``, or names an image twice.
        """
        import pyarrow as pa

        tables: list[pa.Table] = []
        rows: dict[tuple[str, ...], int] = {}
        origins: list[str] = []
        for file in filter(is_metadata, listing.files):
            name = "/".join(file.parts)
            try:
                content = listing.read(file)
            except Exception as error:  # no permission; in an archive it may be damaged, or need a password
                raise ValueError(f"{name} cannot be read ({' '.join(str(error).split())})") from error
            table = _read_table(name, file.suffix, content)
            for parts in _images(name, file.parts[:-1], table):
                if parts in rows:
                    raise ValueError(f"{name} has a second row for {'/'.join(parts)}; leave one")
                rows[parts] = len(origins)
                origins.append(name)
            tables.append(table.drop_columns([_FILE_NAME]))
        if not tables:
            return None
        try:
            return cls(pa.concat_tables(tables, promote_options="default"), rows, origins)
        except pa.ArrowException as error:
            raise ValueError(
                f"{' and '.join(sorted(set(origins)))} do not have columns of one type: {error}"
            ) from error

    def columns(self, images: Sequence[tuple[str, ...]]) -> "pa.Table":
        """The rows of ``images``, given by the parts of their paths; an image without a row has no values."""
        import pyarrow as pa

        return self.table.take(pa.array([self.rows.get(parts) for parts in images], pa.int64()))


def _read_table(name: str, suffix: str, content: bytes) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet

    readers = {".csv": pa.csv.read_csv, ".jsonl": pa.json.read_json, ".parquet": pa.parquet.read_table}
    try:
        table = readers[suffix](BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} cannot be read ({' '.join(str(error).split())})") from error
    if "image" in table.column_names:
        raise ValueError(f"{name} has a column 'image', as the pictures are called; give it another name")
    if _FILE_NAME not in table.column_names:
        found = ", ".join(table.column_names) or "none"
        raise ValueError(
            f"{name} has no column {_FILE_NAME!r}, which says what image a row is of (its columns: {found})"
        )
    return table


def _images(name: str, folder: tuple[str, ...], table: "pa.Table") -> list[tuple[str, ...]]:
    values: list[Any] = table[_FILE_NAME].to_pylist()
    if bad := [value for value in values if not isinstance(value, str) or not value]:
        raise ValueError(f"{name} has the {_FILE_NAME} {bad[0]!r}; it must be the path of an image, from its folder on")
    return [
        (*folder, *(part for part in value.replace("\\", "/").split("/") if part not in ("", "."))) for value in values
    ]
