"""Columns of pictures in Arrow tables.

A cell is the bytes of a picture; or Hugging Face's struct of ``bytes`` and ``path``, of which one
may be null; or a list of either.
"""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mmcot_data.errors import DataError, ImageError
from mmcot_data.images import read_image_bytes

__all__ = ["find_image_column", "is_list", "list_pictures", "paths_suffice", "read_cell"]

_NAME = "image"
_MAX_SHOWN = 20


def find_image_column(schema: Any, name: str | None, where: str) -> str:
    """The column of pictures of an Arrow schema.

    Args:
        schema: The ``pyarrow.Schema``.
        name: Of the column; None takes ``image``, or else the only one that can hold pictures.
        where: What has the schema, for errors.

    Raises:
        DataError: If there is no such column, or several.
    """
    possible = [field.name for field in schema if _can_hold_pictures(field.type)]
    if name is None:
        if _NAME in possible:
            return _NAME
        if len(possible) == 1:
            return possible[0]
    elif name in possible:
        return name
    if name is None and possible:
        raise DataError(
            f"{where}: several columns can hold pictures: {', '.join(possible)}; choose one with "
            "--image-column NAME"
        )
    shown = list(schema)[:_MAX_SHOWN]
    columns = ", ".join(f"{field.name} ({field.type!s:.60})" for field in shown)
    wanted = "has no column of pictures" if name is None else f"{name!r} is no column of pictures"
    raise DataError(
        f"{where}: {wanted}: expected bytes, structs of bytes and path as Hugging Face datasets "
        f"store them, or lists of either; found {columns or 'no columns'}. Pictures that are "
        "somewhere in the net have to be fetched first"
    )


def is_list(kind: Any) -> bool:
    """Whether a cell of this Arrow type may hold several pictures."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def list_pictures(arrays: Iterable[Any]) -> list[list[int]]:
    """Which pictures each cell has, as positions in it: ``[0]`` or none where it is no list.

    Args:
        arrays: Parts of a column, as ``pyarrow.Array``; of structs the paths alone are enough
            where ``paths_suffice``.
    """
    return [positions for array in arrays for positions in _list_pictures(array)]


def paths_suffice(array: Any) -> bool:
    """Whether an array of structs, or of lists of them, has a path in each that is not null."""
    elements = array.flatten() if is_list(array.type) else array
    return elements.null_count == pc.struct_field(elements, "path").null_count


def read_cell(cell: Any, position: int, folder: Path, name: str) -> bytes:
    """The bytes of one picture of a cell.

    Args:
        cell: ``pyarrow.Scalar``.
        position: Of the picture, where the cell is a list.
        folder: Where the files are that cells name; none elsewhere is read.
        name: What to call the picture in errors.

    Raises:
        ImageError: ``missing`` or ``empty``, or as ``read_image_bytes``.
        OSError: If reading the file fails that the cell names.
    """
    if is_list(cell.type):
        cell = cell.values[position]
    value = cell.as_py()
    path = None
    if isinstance(value, dict):
        value, path = value["bytes"], value.get("path")
    if value is not None:
        if not value:
            raise ImageError("empty", f"{name} has no bytes")
        return bytes(value)
    if path is None:
        raise ImageError("missing", f"{name} has neither bytes nor a path")
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts or not (folder / place).exists():
        raise ImageError(
            "missing",
            f"{name} has no bytes, only the path {path!r}, and there is no such file in {folder}: "
            "put the files there, or store the data set with its pictures' bytes",
        )
    return read_image_bytes(folder / place)


def _can_hold_pictures(kind: Any) -> bool:
    if is_list(kind):
        return not is_list(kind.value_type) and _can_hold_pictures(kind.value_type)
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        return "bytes" in names and _is_bytes(kind.field("bytes").type)
    return _is_bytes(kind)


def _is_bytes(kind: Any) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    )


def _list_pictures(array: Any) -> list[list[int]]:
    if not is_list(array.type):
        return [[0] if there else [] for there in _are_there(array).to_pylist()]
    found: list[list[int]] = []
    there = _are_there(array.flatten()).to_pylist()
    start = 0
    for length in pc.list_value_length(array).fill_null(0).to_pylist():
        found.append([number for number in range(length) if there[start + number]])
        start += length
    return found


def _are_there(array: Any) -> Any:
    """Boolean array: neither the cell nor all that it could be read from is null."""
    if not pa.types.is_struct(array.type):
        return array.is_valid()
    there = pa.array([False] * len(array), pa.bool_())
    for name in ("bytes", "path"):
        if array.type.get_field_index(name) >= 0:
            there = pc.or_(there, pc.struct_field(array, name).is_valid())
    return there
