"""Read the rows of a parquet file of questions."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmcot_data.errors import DataError
from mmcot_data.question_tables.columns import CHOICES, image_role, is_known
from mmcot_data.question_tables.faults import TableFaults
from mmcot_data.question_tables.raw import RawRow, RawTable

__all__ = ["is_question_parquet", "is_questions_artifact", "read_parquet"]

_OR_NUMBERS = ("answer", "question_id", "grade")
_OF_THE_ARTIFACT = {"dataset", "position", "image_roles"}
"""With these columns it is an artifact root's questions.parquet."""


def read_parquet(path: Path, faults: TableFaults) -> RawTable:
    """Read the known columns of a parquet file.

    A column of another type, or one that is there twice, leaves no rows; the type is a fault.

    Raises:
        DataError: If it is no parquet file, or the questions.parquet of an artifact root.
        OSError: If reading fails.
    """
    if is_questions_artifact(path):
        raise DataError(
            f"{path} is an artifact root's table of questions, which was made of a data set: give "
            "the data set itself"
        )
    try:
        with pq.ParquetFile(path) as parquet:
            schema = parquet.schema_arrow
            known = [field for field in schema if is_known(field.name)]
            wrong = [field for field in known if not _fits(field)]
            for field in wrong:
                faults.add(None, field.name, f"expected {_words(field.name)}, {_found(field)}")
            names = [field.name for field in known]
            if wrong or len(set(names)) < len(names):
                return RawTable(rows=[], header=schema.names)
            table = parquet.read(columns=names)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{path} can't be read as parquet: {error}") from error
    columns = [_read_cells(table.column(name)) for name in names]
    rows = [
        RawRow(row, dict(zip(names, cells, strict=True)))
        for row, cells in enumerate(zip(*columns, strict=True), start=1)
    ]
    return RawTable(rows=rows, header=schema.names)


def is_question_parquet(path: Path) -> bool:
    """Whether a parquet file has questions and choices, and no column that can hold pictures."""
    schema = _read_schema(path)
    if schema is None or not {"question", CHOICES} <= set(schema.names):
        return False
    return not any(_holds_bytes(field.type) for field in schema)


def is_questions_artifact(path: Path) -> bool:
    """Whether it is what ``mmcot-data questions`` writes."""
    schema = _read_schema(path)
    return schema is not None and set(schema.names) >= _OF_THE_ARTIFACT


def _read_schema(path: Path) -> Any:
    """The ``pyarrow.Schema``; None if it is no parquet file."""
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return None


def _read_cells(column: Any) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # as in CSV, surrogates stand for it and are reported
        return [_decode(cell) for cell in _as_bytes(column).to_pylist()]


def _as_bytes(column: Any) -> Any:
    kind = _plain(column.type)
    return column.cast(kind).cast(pa.list_(pa.binary()) if _is_list(kind) else pa.binary())


def _decode(cell: Any) -> Any:
    if isinstance(cell, list):
        return [_decode(element) for element in cell]
    return None if cell is None else cell.decode("utf-8", "surrogateescape")


def _found(field: Any) -> str:
    hint = ""
    if image_role(field.name) is not None and _holds_bytes(field.type):
        hint = ": write the pictures to files, or read it as pictures with --layout parquet"
    return f"found the type {field.type!s:.80}{hint}"


def _words(name: str) -> str:
    if name == CHOICES:
        return "lists of texts"
    return "texts or whole numbers" if name in _OR_NUMBERS else "texts"


def _fits(field: Any) -> bool:
    kind = _plain(field.type)
    if pa.types.is_null(kind):
        return True
    if field.name == CHOICES:
        return _is_list(kind) and _is_text(_plain(kind.value_type))
    return _is_text(kind) or (field.name in _OR_NUMBERS and pa.types.is_integer(kind))


def _plain(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: Any) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _holds_bytes(kind: Any) -> bool:
    if _is_list(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_holds_bytes(field.type) for field in kind)
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )
