"""Pictures of datasets that Hugging Face's library saved with ``save_to_disk``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmcot_data.errors import DataError, ImageError, how_to_install
from mmcot_data.sources.base import ImageSource
from mmcot_data.sources.markers import DATASET_DICT
from mmcot_data.sources.picture_columns import find_image_column, is_list, list_pictures, read_cell
from mmcot_data.sources.row_groups import FileIdentity, identify_file
from mmcot_data.sources.row_keys import (
    TableRow,
    find_id_column,
    key_pictures,
    list_rows,
    read_ids,
)
from mmcot_data.sources.row_places import RowPlace

__all__ = ["DatasetPicture", "find_dataset_picture", "open_dataset_source"]

_INFO = "dataset_info.json"
_BATCH_ROWS = 32


@dataclass(frozen=True, slots=True)
class DatasetPicture:
    """A picture in a row of a saved dataset: a ``StoredImage``."""

    folder: Path
    column: str
    row: int
    position: int
    """In the cell, where it is a list; else 0."""

    @property
    def name(self) -> str:
        """The folder and the row."""
        picture = f", picture {self.position}" if self.position else ""
        return f"{self.folder}, row {self.row}{picture}"

    def read(self) -> bytes:
        """The picture's bytes.

        Raises:
            ImageError: If there are none.
            DataError: If the dataset is gone or damaged.
            OSError: If reading fails.
        """
        dataset = _column(self.folder, self.column)
        if self.row >= len(dataset):
            raise ImageError("missing", f"{self.name}: the dataset has {len(dataset)} rows")
        cell = dataset[self.row : self.row + 1].column(0)[0]
        return read_cell(cell, self.position, self.folder, self.name)


def open_dataset_source(
    path: Path,
    splits: Sequence[str] | None = None,
    id_column: str | None = None,
    image_column: str | None = None,
    dataset: str | None = None,
    licence: str | None = None,
) -> ImageSource:
    """List the pictures of a saved dataset, or of the splits of a saved DatasetDict.

    Rows are those that the dataset shows: ``select``, ``filter`` and ``shuffle`` count.

    Args:
        path: The folder.
        splits: Only these of a DatasetDict; all if None.
        id_column: As for parquet.
        image_column: As for parquet.
        dataset: Name of the data set instead of the one that dataset_info.json or the folder has.
        licence: Licence of the data instead of the one of dataset_info.json.

    Raises:
        DataError: If it is no such folder, the package datasets is missing, there are no such
            columns or splits, or ids are null or occur twice.
    """
    names = _choose_splits(path, splits)
    rows = [row for name in names for row in _list_split(path, name, id_column, image_column)]
    about = _read_json(path / names[0] / _INFO) if names else {}
    return ImageSource(
        dataset=dataset or about.get("dataset_name") or path.resolve().name,
        licence=licence or about.get("license") or "unknown",
        images=key_pictures(rows),
        questions=None,
    )


def find_dataset_picture(path: Path, place: RowPlace) -> DatasetPicture:
    """The picture at a place that ``open_dataset_source`` gave.

    Raises:
        DataError: As ``open_dataset_source``.
    """
    folder, column = path / place.table, place.column
    if column is None:
        schema = _load(folder).features.arrow_schema
        column = find_image_column(schema, None, str(folder))
    return DatasetPicture(folder, column, place.row, place.position)


def _choose_splits(path: Path, splits: Sequence[str] | None) -> list[str]:
    if not (path / DATASET_DICT).is_file():
        if splits is not None:
            raise DataError(
                f"{path} is a dataset without splits, but {', '.join(splits)} was asked for"
            )
        return ["."]
    there = _read_json(path / DATASET_DICT).get("splits", [])
    if absent := [name for name in splits or () if name not in there]:
        raise DataError(
            f"{path} has no split {', '.join(absent)}; expected some of {', '.join(there)}"
        )
    return [name for name in there if splits is None or name in splits]


def _list_split(
    path: Path, split: str, id_column: str | None, image_column: str | None
) -> list[TableRow]:
    folder = path / split
    dataset = _load(folder)
    schema = dataset.features.arrow_schema
    column = find_image_column(schema, image_column, str(folder))
    key = find_id_column(schema, id_column, str(folder))
    ids = None
    if key is not None:
        ids = read_ids(dataset.select_columns([key]).with_format("arrow")[:].column(0))
    return list_rows(
        "" if split == "." else split,
        ids,
        _list_cells(dataset, folder, column),
        image_column,
        partial(DatasetPicture, folder, column),
    )


def _list_cells(dataset: Any, folder: Path, column: str) -> list[list[int]]:
    stored = dataset.data.column(column)
    if not is_list(stored.type):
        values = stored.chunks
        if pa.types.is_struct(stored.type):
            values = [chunk.field("bytes") for chunk in stored.chunks]
        if not any(chunk.null_count for chunk in [*stored.chunks, *values]):
            return [[0]] * len(dataset)
    batches = _column(folder, column).iter(batch_size=_BATCH_ROWS)
    return list_pictures(chunk for batch in batches for chunk in batch.column(0).chunks)


def _column(folder: Path, column: str) -> Any:
    """The rows of one column as Arrow tables, undecoded, as the folder has them now."""
    return _column_once(folder, _identify(folder), column)


def _load(folder: Path) -> Any:
    return _load_once(folder, _identify(folder))


def _identify(folder: Path) -> tuple[tuple[str, *FileIdentity], ...]:
    """Differs when a file of the dataset has been replaced, written to, added or removed."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in (".arrow", ".json"))
        return tuple((path.name, *identify_file(path)) for path in files)
    except OSError as error:
        raise DataError(f"{folder} can't be read as a dataset saved to disk: {error}") from error


@lru_cache(maxsize=32)
def _column_once(folder: Path, identity: tuple[Any, ...], column: str) -> Any:
    return _load_once(folder, identity).select_columns([column]).with_format("arrow")


@lru_cache(maxsize=32)
def _load_once(folder: Path, identity: tuple[Any, ...]) -> Any:  # noqa: ARG001
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise DataError(
            f"{folder} is a dataset of Hugging Face's library, which needs the package "
            f"{error.name}: {how_to_install('datasets')}"
        ) from error
    try:
        return datasets.Dataset.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise DataError(f"{folder} can't be read as a dataset saved to disk: {error}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
