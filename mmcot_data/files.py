"""Write files so that whatever stands at a final path is complete."""

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl

from mmcot_data.errors import DiskFullError

__all__ = [
    "disk_errors_explained",
    "file_sha256",
    "replace_file",
    "sync_files",
    "sync_folder",
    "write_bytes",
    "write_json",
    "write_parquet",
]


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Create or replace ``path`` in one step.

    ``write`` fills a temporary file beside ``path``, which is flushed to the disk and renamed.
    After an error or a crash ``path`` is what it was before.

    Args:
        path: Final path; its folder is made if it is absent.
        write: Called with the temporary path.

    Raises:
        DiskFullError: If the disk, the quota or the limit of a file's size is too small.
        OSError: If writing fails for another reason.
    """
    tmp = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with disk_errors_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(tmp)
            with tmp.open("rb") as file:
                os.fsync(file.fileno())
            tmp.replace(path)
        finally:
            tmp.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextmanager
def disk_errors_explained(path: Path) -> Iterator[None]:
    """Turn the system's errors of a full disk, quota or file size into ``DiskFullError``.

    Args:
        path: What is written.

    Raises:
        DiskFullError: If the disk, the quota or the limit of a file's size is too small.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        folder = next(each for each in path.absolute().parents if each.exists())
        free = shutil.disk_usage(folder).free / 1e6
        raise DiskFullError(
            f"{path} could not be written: {os.strerror(error.errno)} ({free:.1f} MB are free "
            "there). Nothing half-written stays at its place, and what was complete stays: make "
            "room or choose another folder, and run the same command again"
        ) from error


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """Flush a folder's files and entries to the disk; not those of folders in it."""
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file's bytes, atomically."""
    replace_file(path, lambda tmp: tmp.write_bytes(data))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))


def write_parquet(path: Path, table: pl.DataFrame, metadata: dict[str, str] | None = None) -> None:
    """Write a table as parquet, atomically, with ``metadata`` in the file's key-value store."""
    data = io.BytesIO()  # polars would hide the system's error when the disk is full
    table.write_parquet(data, metadata=metadata or {})
    write_bytes(path, data.getvalue())


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
