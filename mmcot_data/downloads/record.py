"""What a finished download says of itself: ``download.json``, and ``download.parquet``.

``download.json`` is written last: a folder that has it is whole. It names every file that was
fetched, with size, sha256, ETag, date, and whether a digest that was known in advance was compared.
``download.parquet`` has path, size and sha256 of every file of the data set, and of those that were
fetched as they are also where from.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from mmcot_data import __version__
from mmcot_data.downloads.faults import Faults
from mmcot_data.downloads.job import PreparedDataset
from mmcot_data.downloads.workspace import RECORD
from mmcot_data.errors import DataError
from mmcot_data.files import file_sha256, write_json, write_parquet

__all__ = ["FILE_TABLE", "check_files", "read_record", "write_record"]

FILE_TABLE = "download.parquet"
_SCHEMA = pl.Schema(
    {
        "path": pl.String(),
        "nbytes": pl.Int64(),
        "sha256": pl.String(),
        "url": pl.String(),
        "etag": pl.String(),
        "last_modified": pl.String(),
    }
)
_VERSION = 1
_NEEDED = (
    "request",
    "names",
    "archives",
    "fetched",
    "licence",
    "counts",
    "proof",
    "file_table",
    "num_files",
    "nbytes",
    "nbytes_fetched",
    "peak_nbytes",
    "revision",
)


def write_record(work: Path, prepared: PreparedDataset, request: Mapping[str, Any]) -> None:
    """List the files of a prepared data set, and write its record into the working folder.

    Args:
        work: The working folder.
        prepared: What is in it.
        request: What was asked for, as JSON can hold it.
    """
    origins = {
        file.name: (file.url, file.etag, file.last_modified)
        for file in (*prepared.fetched, *prepared.pictures)
    }
    rows = [
        (name, path.stat().st_size, file_sha256(path), *origins.get(name, (None, None, None)))
        for name, path in _walk(work, prepared.names)
    ]
    table = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
    write_parquet(work / FILE_TABLE, table)
    record = {
        "version": _VERSION,
        "request": dict(request),
        "revision": prepared.revision,
        "licence": prepared.licence,
        "counts": dict(prepared.counts),
        "proof": dict(prepared.proof),
        "names": list(prepared.names),
        "archives": list(prepared.archives),
        "num_files": table.height,
        "nbytes": int(table["nbytes"].sum()),
        "peak_nbytes": sum(path.stat().st_size for _, path in _walk(work, ["."])),
        "file_table": {"name": FILE_TABLE, "sha256": file_sha256(work / FILE_TABLE)},
        "fetched": [asdict(file) for file in prepared.fetched],
        "nbytes_fetched": sum(file.nbytes for file in (*prepared.fetched, *prepared.pictures)),
        "mmcot_version": __version__,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_json(work / RECORD, record)


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a finished download.

    Raises:
        DataError: If it is damaged.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; {_advice(folder)}") from error
    if not isinstance(record, dict) or (missing := [k for k in _NEEDED if k not in record]):
        lacking = ", ".join(missing) if isinstance(record, dict) else "everything"
        raise DataError(f"{path} is no record of a download, it lacks {lacking}; {_advice(folder)}")
    return record


def check_files(
    folder: Path,
    record: Mapping[str, Any],
    *,
    with_digests: bool,
    on_progress: Callable[[int, int], object],
) -> None:
    """Compare the files of a finished download with its table.

    Args:
        folder: The data set.
        record: What ``read_record`` gives.
        with_digests: Read all files and compare their sha256, not their sizes alone.
        on_progress: Given the number of files compared, and of all.

    Raises:
        DataError: If files are missing or others than they were: all are counted.
    """
    path = folder / FILE_TABLE
    faults = Faults()
    if not path.is_file() or file_sha256(path) != record["file_table"]["sha256"]:
        raise DataError(f"{path} is missing or damaged; {_advice(folder)}")
    try:
        table = pl.read_parquet(path)
    except PolarsError as error:
        raise DataError(f"{path} can't be read as parquet: {error}; {_advice(folder)}") from error
    for number, (name, nbytes, digest) in enumerate(
        table.select("path", "nbytes", "sha256").iter_rows(), 1
    ):
        file = folder / name
        if not file.is_file():
            faults.add(f"{name} is missing")
        elif (found := file.stat().st_size) != nbytes:
            faults.add(f"{name} has {found} bytes, expected {nbytes}")
        elif with_digests and (sha256 := file_sha256(file)) != digest:
            faults.add(f"{name} has the sha256 {sha256[:12]}…, expected {digest[:12]}…")
        on_progress(number, table.height)
    faults.raise_if_any(f"{folder} is not as it was downloaded", _advice(folder))


def _walk(folder: Path, names: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Files and their names, in order."""
    for name in names:
        path = folder / name
        if path.is_dir():
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                yield file.relative_to(folder).as_posix(), file
        else:
            yield name, path


def _advice(folder: Path) -> str:
    return f"delete {folder} and run the same command again"
