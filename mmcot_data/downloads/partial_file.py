"""The part of a file that has arrived: ``.<name>.part`` beside the file's final place.

``.<name>.part.json`` says what it is a part of, so that another run can ask for the rest.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from mmcot_data.downloads.channel import StoppedError
from mmcot_data.files import disk_errors_explained, sync_folder, write_json

__all__ = ["Origin", "PartialFile", "hash_in_steps", "part_nbytes", "remove_leavings"]

_STEP = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a server said of the file that it sends."""

    url: str
    """Without what is secret in it."""
    etag: str | None
    last_modified: str | None
    validator: str | None
    """For If-Range: a strong ETag or a date that is as good; None if there is neither."""
    nbytes: int | None
    """Of the whole file."""


class PartialFile:
    """Bytes of the beginning of a file. For one thread; a context manager.

    Args:
        path: Final place of the file.
        check: Called now and then while what is there is read; may raise.
    """

    def __init__(self, path: Path, check: Callable[[], object]) -> None:
        self.path = path
        self.origin: Origin | None = None
        """None if it isn't known where the bytes are from, or if there are none."""
        self.nbytes = 0
        self._part = _part_path(path)
        self._origin_file = path.with_name(f"{self._part.name}.json")
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        if self._part.is_file():
            self._hash = hash_in_steps(self._part, check)
            self.nbytes = self._part.stat().st_size
            self.origin = self._read_origin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: object, tb: TracebackType | None
    ) -> None:
        self._close()
        is_stopped = exc_type is not None and issubclass(exc_type, StoppedError)
        if self.nbytes == 0 and not is_stopped:  # once stopped, another call may own the files
            self.discard()

    def discard(self) -> None:
        """Forget all bytes."""
        self._close()
        self._part.unlink(missing_ok=True)
        self._origin_file.unlink(missing_ok=True)
        self.nbytes = 0
        self.origin = None
        self._hash = hashlib.sha256()

    def begin(self, origin: Origin, *, keep: bool) -> None:
        """Forget all bytes, and say where the next ones are from.

        Args:
            origin: What the bytes are a part of.
            keep: Whether another run shall be able to continue.
        """
        self.discard()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if keep:  # which also brings to the disk that the old bytes are gone
            write_json(self._origin_file, asdict(origin))
        self.origin = origin

    def append(self, data: bytes) -> None:
        """Write bytes at the end.

        Raises:
            DiskFullError: If there is no room for them.
        """
        with disk_errors_explained(self.path):
            if self._file is None:
                self._file = self._part.open("ab", buffering=0)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        self._hash.update(data)
        self.nbytes += len(data)

    def sha256(self) -> str:
        """Hex digest of the bytes so far."""
        return self._hash.hexdigest()

    def finish(self) -> None:
        """Make it the file.

        Raises:
            DiskFullError: If there is no room for what is not on the disk yet.
        """
        with disk_errors_explained(self.path):
            self.append(b"")  # an empty file has not been opened yet
            assert self._file is not None
            os.fsync(self._file.fileno())
            self._close()
            self._part.replace(self.path)
        self._origin_file.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read_origin(self) -> Origin | None:
        try:
            return Origin(**json.loads(self._origin_file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None  # it is continued only if its digest is published, else fetched anew


def hash_in_steps(path: Path, check: Callable[[], object]) -> "hashlib._Hash":
    """The sha256 of a file's bytes; ``check`` is called now and then, and may raise."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(_STEP):
            digest.update(data)
            check()
    return digest


def part_nbytes(path: Path) -> int:
    """Bytes that have arrived of the file whose final place is ``path``."""
    try:
        return _part_path(path).stat().st_size
    except FileNotFoundError:
        return 0


def remove_leavings(folders: Iterable[Path]) -> None:
    """Delete what a killed or stopped fetch left in folders and nothing can use."""
    for folder in folders:
        for path in folder.glob(".*.part.json.*.tmp"):
            path.unlink(missing_ok=True)
        for path in folder.glob(".*.part.json"):
            if not path.with_suffix("").exists():
                path.unlink(missing_ok=True)


def _part_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
