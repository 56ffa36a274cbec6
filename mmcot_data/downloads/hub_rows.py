"""Read ScienceQA's rows from the parquet files of the hub, a few at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmcot_data.downloads.faults import Faults
from mmcot_data.errors import DataError
from mmcot_data.sources.row_groups import open_parquet

__all__ = ["HubRow", "check_hub_file", "read_hub_rows"]

_BATCH_ROWS = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class HubRow:
    """One row."""

    where: str
    """File and row, for people."""
    values: dict[str, Any]
    """Texts, choices and answer by column."""
    picture: bytes | None
    has_path_only: bool
    """The picture is somewhere else."""


def check_hub_file(path: Path, name: str) -> int:
    """Check the columns of a parquet file.

    Args:
        path: Where it is.
        name: What to call it.

    Returns:
        Bytes that its pictures have together.

    Raises:
        DataError: If it is no parquet file, or a column is missing or of another type.
        OSError: If reading fails.
    """
    faults = Faults()
    try:
        with open_parquet(path) as parquet:
            schema, about = parquet.schema_arrow, parquet.metadata
            groups = [about.row_group(number) for number in range(about.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{name} can't be read as parquet: {error}") from error
    for column, (is_right, expected) in _COLUMNS.items():
        if column not in schema.names:
            faults.add(f"column {column}: expected {expected}, found none")
        elif not is_right(found := schema.field(column).type):
            faults.add(f"column {column}: expected {expected}, found {found}")
    faults.raise_if_any(
        name, f"it has the columns {', '.join(schema.names)}; choose another --revision"
    )
    return sum(
        group.column(number).total_uncompressed_size
        for group in groups
        for number in range(group.num_columns)
        if group.column(number).path_in_schema == "image.bytes"
    )


def read_hub_rows(files: Sequence[Path]) -> Iterator[HubRow]:
    """The rows of files that ``check_hub_file`` has found right, in their order.

    Raises:
        DataError: If a file is damaged.
        OSError: If reading fails.
    """
    for path in files:
        row = 0
        try:
            with open_parquet(path) as parquet:
                for batch in parquet.iter_batches(
                    _BATCH_ROWS, columns=list(_COLUMNS), use_threads=False
                ):
                    for values in batch.to_pylist():
                        image = values.pop("image") or {}
                        picture = image.get("bytes")
                        yield HubRow(
                            where=f"{path.name}, row {row}",
                            values=values,
                            picture=picture,
                            has_path_only=picture is None and image.get("path") is not None,
                        )
                        row += 1
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DataError(f"{path.name} is damaged behind row {row}: {error}") from error


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_texts(kind: Any) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(is_list and _is_text(kind.value_type))


def _is_image(kind: Any) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    found = kind.field("bytes").type
    return bool(pa.types.is_binary(found) or pa.types.is_large_binary(found))


_TEXT: tuple[Callable[[Any], bool], str] = (_is_text, "text")
_COLUMNS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "image": (_is_image, "a struct of bytes and path"),
    "question": _TEXT,
    "choices": (_is_texts, "a list of texts"),
    "answer": (lambda kind: bool(pa.types.is_integer(kind)), "whole numbers"),
    "hint": _TEXT,
    "task": _TEXT,
    "grade": _TEXT,
    "subject": _TEXT,
    "topic": _TEXT,
    "category": _TEXT,
    "skill": _TEXT,
    "lecture": _TEXT,
    "solution": _TEXT,
}
