"""Read the objects of a file with one JSON object a line."""

import codecs
from pathlib import Path

from mmcot_data.errors import DataError
from mmcot_data.question_tables.faults import TableFaults
from mmcot_data.question_tables.raw import RawRow, RawTable
from mmcot_data.question_tables.values import show
from mmcot_data.strict_json import parse_json

__all__ = ["read_jsonl"]


def read_jsonl(path: Path, faults: TableFaults) -> RawTable:
    """Read a file of JSON lines in UTF-8.

    Blank lines are left out. A line that is no object is a fault and is left out.

    Raises:
        OSError: If reading fails.
    """
    rows = []
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    for line, content in enumerate(data.split(b"\n"), start=1):
        if not content.strip():
            continue
        try:
            value = parse_json(content.decode(), "expected a JSON object")
        except UnicodeDecodeError as error:
            byte = content[error.start]
            message = f"expected UTF-8, found byte 0x{byte:02x} at position {error.start}"
            faults.add(line, None, message)
        except DataError as error:
            faults.add(line, None, str(error))
        else:
            if isinstance(value, dict):
                rows.append(RawRow(line, value))
            else:
                faults.add(line, None, f"expected a JSON object, found {show(value)}")
    return RawTable(rows=rows, header=None)
