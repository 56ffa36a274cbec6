"""Rows as files that people look at or other programs read."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.files import replace_file, write_parquet

__all__ = ["write_rows"]


def write_rows(path: Path, rows: Sequence[dict[str, Any]], schema: pl.Schema) -> None:
    """Write rows, atomically.

    Args:
        path: A ``.parquet`` file, or ``.jsonl`` with one JSON object a line.
        rows: The rows; their order is kept.
        schema: Their columns.

    Raises:
        DataError: If the name ends in something else.
    """
    if path.suffix == ".parquet":
        write_parquet(path, pl.DataFrame(rows, schema=schema))
    elif path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        replace_file(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))
    else:
        raise DataError(f"{path}: expected a name that ends in .parquet or .jsonl")
