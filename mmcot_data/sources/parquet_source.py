"""Pictures in the rows of parquet files, as Hugging Face's hub and many others store them."""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmcot_data.errors import DataError, ImageError
from mmcot_data.sources.base import ImageSource
from mmcot_data.sources.markers import PARQUET_SUFFIXES
from mmcot_data.sources.picture_columns import (
    find_image_column,
    is_list,
    list_pictures,
    paths_suffice,
    read_cell,
)
from mmcot_data.sources.row_groups import (
    FileIdentity,
    RowGroupCache,
    identify_file,
    open_parquet,
    read_batches,
)
from mmcot_data.sources.row_keys import (
    TableRow,
    find_id_column,
    key_pictures,
    list_rows,
    read_ids,
)
from mmcot_data.sources.row_places import RowPlace
from mmcot_data.sources.walk import list_files

__all__ = ["ParquetPicture", "find_parquet_picture", "open_parquet_source"]

_cache = RowGroupCache()


@dataclass(frozen=True, slots=True)
class ParquetPicture:
    """A picture in a row of a parquet file: a ``StoredImage``."""

    path: Path
    column: str
    row: int
    """Of the file."""
    position: int
    """In the cell, where it is a list; else 0."""

    @property
    def name(self) -> str:
        """The file and the row."""
        picture = f", picture {self.position}" if self.position else ""
        return f"{self.path}, row {self.row}{picture}"

    def read(self) -> bytes:
        """The picture's bytes, as the file has them now.

        Raises:
            ImageError: If there are none, or the file is damaged, gone or replaced meanwhile.
            OSError: If reading fails.
        """
        try:
            identity = identify_file(self.path)
            ends = _row_group_ends(self.path, identity)
            group = bisect_right(ends, self.row)
            if group == len(ends):
                raise ImageError("missing", f"{self.name}: the file has {(0, *ends)[-1]} rows")
            start = ends[group - 1] if group else 0
            cells = _cache.column(self.path, identity, group, self.column)
            if identify_file(self.path) != identity:
                raise ImageError("unreadable", f"{self.path} was replaced while it was read")
            cell = cells[self.row - start]
        except FileNotFoundError as error:
            raise ImageError("missing", f"{self.path} does not exist") from error
        except (pa.ArrowException, OSError) as error:
            if _is_of_the_system(error):
                raise
            raise ImageError("unreadable", f"{self.name}: {error}") from error
        return read_cell(cell, self.position, self.path.parent, self.name)


def open_parquet_source(
    path: Path,
    id_column: str | None = None,
    image_column: str | None = None,
    dataset: str | None = None,
    licence: str | None = None,
) -> ImageSource:
    """List the pictures of a parquet file, or of all in a folder and in the folders in it.

    Args:
        path: The file or folder.
        id_column: Column of strings or whole numbers to know the pictures by; ``image_sha256`` for
            the sha256 of their bytes. None finds it by its name.
        image_column: Column of the pictures; None finds it by its name or type.
        dataset: Name of the data set instead of the file's or folder's.
        licence: Licence of the data.

    Raises:
        DataError: If there are no such files or columns, a file is damaged, or ids are null or
            occur twice.
        OSError: If reading fails.
    """
    folder = path.parent if path.is_file() else path
    files = [path.name] if path.is_file() else list_files(path, PARQUET_SUFFIXES)
    if not files:
        raise DataError(f"{path} has no files that end in {' or '.join(PARQUET_SUFFIXES)}")
    rows = [row for file in files for row in _list_file(folder, file, id_column, image_column)]
    return ImageSource(
        dataset=dataset or (path.stem if path.is_file() else path.resolve().name),
        licence=licence or "unknown",
        images=key_pictures(rows),
        questions=None,
    )


def find_parquet_picture(folder: Path, place: RowPlace) -> ParquetPicture:
    """The picture at a place that ``open_parquet_source`` gave.

    Raises:
        DataError: If the file is not what it was.
        OSError: If reading fails.
    """
    path, column = folder / place.table, place.column
    if column is None:
        with _opened(path) as parquet:
            column = find_image_column(parquet.schema_arrow, None, str(path))
    return ParquetPicture(path, column, place.row, place.position)


def _list_file(
    folder: Path, file: str, id_column: str | None, image_column: str | None
) -> list[TableRow]:
    path = folder / file
    with _opened(path) as parquet:
        schema = parquet.schema_arrow
        column = find_image_column(schema, image_column, str(path))
        key = find_id_column(schema, id_column, str(path))
        ids = None if key is None else read_ids(parquet.read(columns=[key]).column(0))
        cells = [
            positions
            for group in range(parquet.num_row_groups)
            for positions in _list_group(parquet, group, column)
        ]
    return list_rows(file, ids, cells, image_column, partial(ParquetPicture, path, column))


def _list_group(parquet: Any, group: int, column: str) -> list[list[int]]:
    """Positions of the pictures in each cell of a row group, from as few bytes as possible.

    Statistics tell that no picture is null; where they do not, the paths beside the bytes may;
    else the pictures themselves have to be read.
    """
    about = parquet.metadata.row_group(group)
    leaves = {leaf.path_in_schema: leaf for leaf in map(about.column, range(about.num_columns))}
    kind = parquet.schema_arrow.field(column).type
    if not is_list(kind) and any(
        _has_no_null(leaves.get(name)) for name in (column, f"{column}.bytes")
    ):
        return [[0]] * about.num_rows
    for name in leaves:
        if name.startswith(f"{column}.") and name.endswith(".path"):
            paths = [batch.column(0) for batch in read_batches(parquet, group, name)]
            if all(map(paths_suffice, paths)):
                return list_pictures(paths)
    return list_pictures(batch.column(0) for batch in read_batches(parquet, group, column))


def _has_no_null(leaf: Any) -> bool:
    return leaf is not None and leaf.statistics is not None and leaf.statistics.null_count == 0


@lru_cache(maxsize=256)
def _row_group_ends(path: Path, identity: FileIdentity) -> tuple[int, ...]:  # noqa: ARG001
    """The row after the last one of each row group of the file with this identity."""
    with open_parquet(path) as parquet:
        about = parquet.metadata
        return tuple(accumulate(about.row_group(n).num_rows for n in range(about.num_row_groups)))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with open_parquet(path) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        if _is_of_the_system(error):
            raise
        raise DataError(f"{path} can't be read as parquet: {error}") from error


def _is_of_the_system(error: Exception) -> bool:
    """Whether reading failed, not understanding what was read: pyarrow raises OSError for both."""
    return isinstance(error, OSError) and error.errno is not None
