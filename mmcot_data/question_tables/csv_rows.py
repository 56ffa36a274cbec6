"""Read the records of a CSV file, whatever its delimiter, with the lines that they begin on."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError
from mmcot_data.question_tables.columns import CHOICES, is_known
from mmcot_data.question_tables.faults import BadValueError, TableFaults
from mmcot_data.question_tables.raw import RawRow, RawTable
from mmcot_data.question_tables.values import show
from mmcot_data.strict_json import parse_json

__all__ = ["read_csv"]

_DELIMITERS = ",;\t"
_INDEX = re.compile(r"0|[1-9][0-9]?")


def read_csv(path: Path, faults: TableFaults) -> RawTable:
    """Read a CSV file in UTF-8.

    The delimiter is the one of ``,``, ``;`` and tab by which the header has the most known
    columns. Empty cells are None. A record that can't be read is a fault and is left out.

    Raises:
        DataError: If there is no header, or the file is in UTF-16.
        OSError: If reading fails.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(
            f"{path}: expected text in UTF-8, found UTF-16: save it as UTF-8 (in spreadsheets: "
            "CSV UTF-8)"
        )
    # What is no UTF-8 becomes surrogates, which are reported where they stand.
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    delimiter = max(_DELIMITERS, key=lambda one: sum(map(is_known, _read_header(text, one))))
    records = _read_records(text, delimiter, faults)
    place, header = next(records, (1, []))
    rows = []
    for line, record in records if header else ():
        if len(record) == len(header):
            cells = {name: cell or None for name, cell in zip(header, record, strict=True)}
            rows.append(RawRow(line, cells))
        else:
            faults.add(
                line,
                None,
                f"expected {len(header)} cells, as the header has, found {len(record)}",
            )
    return RawTable(
        rows=rows,
        header=header,
        header_place=place,
        convert={CHOICES: _parse_choices, "answer": _parse_answer},
    )


def _read_header(text: str, delimiter: str) -> list[str]:
    for _, record in _read_records(text, delimiter, None):
        return record
    return []


def _read_records(
    text: str, delimiter: str, faults: TableFaults | None
) -> Iterator[tuple[int, list[str]]]:
    """Lines and records; blank lines are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if faults is not None:
                faults.add(
                    line,
                    None,
                    'expected quoted cells that end in one " (those within are written ""): '
                    f"{error}",
                )
            continue
        if record:
            yield line, record


def _parse_choices(cell: str) -> Any:
    expected = 'expected a JSON array of texts, as ["yes", "no"]'
    try:
        return parse_json(cell, expected)
    except DataError as error:
        raise BadValueError(f"{expected}, found {show(cell)}") from error


def _parse_answer(cell: str) -> int | str:
    return int(cell) if _INDEX.fullmatch(cell) else cell
