"""Text artifacts: a parquet table of captions or rationales by one producer, and what made it.

``<artifact root>/<captions or rationales>/<producer>.parquet``; what made the table (model,
settings, source file) is a JSON object under ``made_by`` in the file's key-value metadata.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import polars as pl
from filelock import FileLock, Timeout

from mmcot_data.errors import DataError
from mmcot_data.files import write_parquet

__all__ = [
    "artifact_path",
    "locked_artifact",
    "read_artifact",
    "read_made_by",
    "write_artifact",
    "write_artifact_once",
]

_MADE_BY = "made_by"


def artifact_path(root: Path, kind: Literal["captions", "rationales"], producer: str) -> Path:
    """Where the text artifact of a producer stands.

    Args:
        root: The artifact root.
        kind: The folder in it.
        producer: Who made it, for example ``gold`` or ``vit-gpt2``.

    Raises:
        DataError: If the producer's name cannot be a file name.
    """
    if not re.fullmatch(r"\w[\w.+-]*", producer):
        raise DataError(
            f"producer {producer!r}: expected the name of a file in {root / kind}, without "
            ".parquet: letters, digits and . + - _"
        )
    return root / kind / f"{producer}.parquet"


def write_artifact(
    path: Path, table: pl.DataFrame, key: Sequence[str], made_by: dict[str, Any]
) -> None:
    """Write a text artifact, atomically.

    Args:
        path: Final path.
        table: The rows.
        key: Columns whose values together name a row.
        made_by: Model, settings, source: anything that JSON can hold.

    Raises:
        DataError: If two rows have the same key.
    """
    _check_key(path, table, key)
    write_parquet(path, table, {_MADE_BY: json.dumps(made_by, ensure_ascii=False, sort_keys=True)})


@contextmanager
def locked_artifact(path: Path) -> Iterator[None]:
    """Keep other processes from changing a text artifact for as long as the block.

    Raises:
        DataError: If one is at it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.stem}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(
            f"{path} is being made by another process: wait for it, or choose another name"
        ) from error
    try:
        yield
    finally:
        lock.release()


def write_artifact_once(
    path: Path,
    table: pl.DataFrame,
    key: Sequence[str],
    made_by: dict[str, Any],
    marks: Sequence[str] = (),
) -> bool:
    """Write a text artifact if it is not there, and see that it is the same if it is.

    Args:
        path: Final path.
        table: The rows.
        key: Columns whose values together name a row.
        made_by: What made it.
        marks: Columns, and what made_by says of them, that may have been changed since.

    Returns:
        Whether it was written.

    Raises:
        DataError: If another one stands there.
    """
    if not path.exists():
        write_artifact(path, table, key, made_by)
        return True
    there = read_artifact(path, table.schema, key, table.columns)
    found, wanted = (
        {name: value for name, value in each.items() if name not in marks}
        for each in (read_made_by(path), json.loads(json.dumps(made_by)))
    )
    same_rows = there.drop(marks, strict=False).equals(table.drop(marks, strict=False))
    if found != wanted or not same_rows:
        raise DataError(
            f"{path} exists and holds something else: choose another name for what is to be made, "
            "or delete the file"
        )
    return False


def read_artifact(
    path: Path, schema: pl.Schema, key: Sequence[str], nullable: Sequence[str] = ()
) -> pl.DataFrame:
    """Read a text artifact and check it.

    Args:
        path: The file.
        schema: The columns that it must have; others are left out.
        key: Columns whose values together name a row.
        nullable: Columns that may hold nulls.

    Raises:
        DataError: If the file is absent or not parquet, its columns are others, a value is
            missing, or two rows have the same key.
    """
    _check_exists(path)
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: expected a parquet file: {error}") from error
    found = {name: table.schema.get(name) for name in schema}
    if found != dict(schema):
        raise DataError(
            f"{path}: expected the columns {_columns(schema)}; found {_columns(table.schema)}"
        )
    table = table.select(schema.names())
    for name in schema:
        if name not in nullable and (num_nulls := table[name].null_count()):
            raise DataError(f"{path}: expected a {name} in each row, found {num_nulls} nulls")
    _check_key(path, table, key)
    return table


def read_made_by(path: Path) -> dict[str, Any]:
    """What made a text artifact, as its writer noted it.

    Raises:
        DataError: If the file is absent, not parquet, or carries no such note.
    """
    _check_exists(path)
    try:
        metadata = pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: expected a parquet file: {error}") from error
    if _MADE_BY not in metadata:
        raise DataError(
            f"{path}: expected the key {_MADE_BY!r} in the parquet metadata, none found"
        )
    made_by: dict[str, Any] = json.loads(metadata[_MADE_BY])
    return made_by


def _check_exists(path: Path) -> None:
    if not path.is_file():
        present = ", ".join(sorted(file.stem for file in path.parent.glob("*.parquet"))) or "none"
        raise DataError(f"{path} does not exist; producers in {path.parent}: {present}")


def _check_key(path: Path, table: pl.DataFrame, key: Sequence[str]) -> None:
    counts = table.group_by(key, maintain_order=True).len("count").filter(pl.col("count") > 1)
    if not counts.is_empty():
        *values, count = counts.row(0)
        raise DataError(f"{path}: {' '.join(key)} {tuple(values)} occurs {count} times")


def _columns(schema: pl.Schema) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in schema.items())
