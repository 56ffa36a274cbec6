"""How the pictures of a table's rows are known: by a column, or by the sha256 of their bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from mmcot_data.errors import DataError, ImageError
from mmcot_data.images import bytes_sha256
from mmcot_data.sources.base import SourceImage, StoredImage
from mmcot_data.sources.row_places import RowPlace

__all__ = ["BY_BYTES", "TableRow", "find_id_column", "key_pictures", "list_rows", "read_ids"]

BY_BYTES: Final = "image_sha256"
"""In place of an id column: a picture is known by the sha256 of its bytes."""
_ID_COLUMNS = ("question_id", "id", "pid", "image_id", "key")
_MAX_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """A row of a table, as far as its pictures go."""

    place: str
    row_id: str | None
    by_bytes: bool
    """Whether the sha256 of each picture's bytes takes the place of the id."""
    pictures: tuple[tuple[int, str, StoredImage], ...]
    """Of each its position in the row's cell, its ``file``, and where it is."""


def find_id_column(schema: Any, name: str | None, where: str) -> str | None:
    """The column that the pictures are known by.

    Args:
        schema: The ``pyarrow.Schema``.
        name: Of the column; None takes the first of question_id, id, pid, image_id and key.
        where: What has the schema, for errors.

    Returns:
        None for ``BY_BYTES``.

    Raises:
        DataError: If there is no such column, or its type is no identifier's.
    """
    if name == BY_BYTES:
        return None
    if name is None:
        name = next((column for column in _ID_COLUMNS if column in schema.names), None)
        if name is None:
            raise DataError(
                f"{where} has no column {', '.join(_ID_COLUMNS)} to know its pictures by: found "
                f"{', '.join(schema.names)}. The number of a row is no identifier: it changes when "
                "rows are sorted, filtered or stored in another way. Name a column of strings or "
                f"whole numbers with --id-column NAME, or give --id-column {BY_BYTES} to know each "
                "picture by the sha256 of its bytes"
            )
    if schema.names.count(name) != 1:
        raise DataError(
            f"{where}: expected one column {name!r} to know the pictures by, found the columns "
            f"{', '.join(schema.names)}"
        )
    kind = schema.field(name).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(value) or pa.types.is_large_string(value)
    if not (is_text or pa.types.is_string_view(value) or pa.types.is_integer(value)):
        raise DataError(
            f"{where}: the column {name} is {kind}, expected strings or whole numbers to know the "
            "pictures by; name another with --id-column NAME"
        )
    return name


def read_ids(column: Any) -> list[str | None]:
    """Ids as strings; the column's type is one that ``find_id_column`` accepts."""
    return [None if value is None else str(value) for value in column.to_pylist()]


def list_rows(
    table: str,
    ids: Sequence[str | None] | None,
    cells: Sequence[Sequence[int]],
    image_column: str | None,
    picture: Callable[[int, int], StoredImage],
) -> list[TableRow]:
    """The rows of one table.

    Args:
        table: Its path within the data set.
        ids: Of the rows; None if the bytes of pictures take their place.
        cells: Positions of the pictures in each row's cell.
        image_column: As it was asked for by its name; None if it was not.
        picture: Gives the picture of a row and a position.
    """
    return [
        TableRow(
            place=str(RowPlace(table, row)),
            row_id=None if ids is None else ids[row],
            by_bytes=ids is None,
            pictures=tuple(
                (
                    position,
                    str(RowPlace(table, row, position, image_column)),
                    picture(row, position),
                )
                for position in positions
            ),
        )
        for row, positions in enumerate(cells)
    ]


def key_pictures(rows: Sequence[TableRow]) -> list[SourceImage]:
    """Give every picture of a table its key.

    The first picture of a row has the role ``question``, the others ``question_2``, …. Where
    pictures are known by their bytes all are read, and those that are equal are listed once.

    Args:
        rows: All rows, those without pictures too.

    Raises:
        DataError: If an id is null or occurs twice, or if a picture that is to be known by its
            bytes has none.
        OSError: If reading a picture fails.
    """
    _check_ids([row for row in rows if not row.by_bytes])
    images: dict[tuple[str, str], SourceImage] = {}
    for row in rows:
        for position, file, stored in row.pictures:
            role = "question" if position == 0 or row.by_bytes else f"question_{position + 1}"
            key = row.row_id or _sha256(file, stored)
            image = SourceImage(question_id=key, role=role, file=file, stored=stored)
            images.setdefault((key, role), image)
    return list(images.values())


def _sha256(file: str, stored: StoredImage) -> str:
    try:
        return bytes_sha256(stored.read())
    except ImageError as error:
        raise DataError(
            f"{file} can't be known by the sha256 of its bytes: {error}; name a column of "
            "identifiers with --id-column NAME"
        ) from error


def _check_ids(rows: Sequence[TableRow]) -> None:
    if null := [row.place for row in rows if not row.row_id]:
        raise DataError(f"{len(null)} rows have no id: {_show(null)}; {_ADVICE}")
    first: dict[str | None, str] = {}
    twice = [
        f"{row.place} has the id {row.row_id!r} of {first[row.row_id]}"
        for row in rows
        if first.setdefault(row.row_id, row.place) != row.place
    ]
    if twice:
        raise DataError(
            f"{len(twice)} rows have the id of another row: {_show(twice)}. If these are splits "
            f"of one data set, give the folder or file of one of them; else {_ADVICE}"
        )


_ADVICE = (
    "name a column of identifiers with --id-column NAME, or give --id-column "
    f"{BY_BYTES} to know each picture by the sha256 of its bytes"
)


def _show(items: Sequence[str]) -> str:
    more = f" and {len(items) - _MAX_SHOWN} more" if len(items) > _MAX_SHOWN else ""
    return ", ".join(items[:_MAX_SHOWN]) + more
