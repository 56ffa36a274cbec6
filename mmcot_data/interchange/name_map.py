"""JSON files that say which row or picture belongs to a question, as ``name_map.json``."""

import json
import re
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError
from mmcot_data.files import write_bytes

__all__ = ["read_picture_map", "read_row_map", "write_row_map"]

_NUM_LISTED = 10


def read_row_map(path: Path, num_rows: int) -> dict[str, int]:
    """Row by question id, in the order of the file; several questions may share a row.

    Args:
        path: Multimodal-CoT's ``name_map.json``: an object whose values are integers, or such
            integers as strings.
        num_rows: Rows of the features.

    Raises:
        DataError: If it is no such file, an id occurs twice, or a value is no row of the features.
    """
    rows, faults = {}, []
    for question_id, value in _read_object(path).items():
        row = _row(value)
        if row is not None and 0 <= row < num_rows:
            rows[question_id] = row
        else:
            faults.append(f"question {question_id!r} has row {value!r:.40}")
    _refuse(path, faults, f"a row number from 0 to {num_rows - 1} for each question id")
    return rows


def read_picture_map(path: Path, pictures: Container[str]) -> dict[str, str]:
    """Name of the picture by question id, in the order of the file.

    Args:
        path: A JSON object of strings.
        pictures: The names that there are.

    Raises:
        DataError: If it is no such file, an id occurs twice, or a value is no picture.
    """
    names = _read_object(path)
    faults = [
        f"question {question_id!r} has picture {name!r:.40}"
        for question_id, name in names.items()
        if not isinstance(name, str) or name not in pictures
    ]
    _refuse(path, faults, "the name of a picture that is in the file for each question id")
    return names


def write_row_map(path: Path, rows: Mapping[str, int]) -> None:
    """Write ``name_map.json`` as Multimodal-CoT has it: the rows are strings.

    A file that says the same already is left as it is.

    Raises:
        DataError: If a file that says something else is there.
    """
    if not path.exists():
        write_bytes(path, json.dumps({key: str(row) for key, row in rows.items()}).encode())
    elif {key: _row(value) for key, value in _read_object(path).items()} != rows:
        raise DataError(
            f"{path} is of other questions or rows, and there can be only one in a folder; choose "
            "another --out"
        )


def _row(value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    return value if type(value) is int else None


def _read_object(path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
        if twice:
            raise ValueError(f"{len(twice)} ids occur more than once, the first is {twice[0]!r}")
        return dict(pairs)

    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist; expected a JSON object that has an entry for each question "
            'id, as {"1": "0", "2": "1"}'
        ) from error
    except ValueError as error:
        raise DataError(f"{path}: no JSON object by question id: {error}") from error
    if not isinstance(value, dict) or not value:
        raise DataError(
            f"{path}: expected a JSON object with an entry for each question id, found "
            f"{value!r:.40}"
        )
    return value


def _refuse(path: Path, faults: list[str], expected: str) -> None:
    if not faults:
        return
    shown = "".join(f"\n  {fault}" for fault in faults[:_NUM_LISTED])
    more = f"\n  and {len(faults) - _NUM_LISTED} more" if len(faults) > _NUM_LISTED else ""
    raise DataError(f"{path}: expected {expected}, found:{shown}{more}")
