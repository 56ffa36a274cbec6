"""Row groups of parquet files that were read last, within a limit of memory.

Parquet can't be entered in the middle of a row group: to read one cell is to read its column from
the group's start. A group is therefore read once, kept, and asked for its cells. Groups that are
too large to be kept are unpacked into a temporary file, which is mapped into memory: the system
keeps of it what it has room for.
"""

import errno
import itertools
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmcot_data.errors import DiskFullError

__all__ = ["FileIdentity", "RowGroupCache", "identify_file", "open_parquet", "read_batches"]

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_BATCH_ROWS = 32
_READ_NBYTES = 1 << 20

FileIdentity = tuple[int, int, int]
"""Differs when a file has been replaced or written to."""
_Key = tuple[Path, FileIdentity, int, str]


class RowGroupCache:
    """Columns of row groups, the least recently used of which are dropped; for several threads.

    Args:
        memory_nbytes: What the groups that are kept may have together. Those that are used at the
            moment stay in memory until they are done with.
        group_nbytes: Larger groups go to a temporary file.
        num_unpacked: Temporary files at a time.
    """

    def __init__(
        self,
        memory_nbytes: int = 512 << 20,
        group_nbytes: int = 128 << 20,
        num_unpacked: int = 2,
    ) -> None:
        self._memory_nbytes = memory_nbytes
        self._group_nbytes = group_nbytes
        self._num_unpacked = num_unpacked
        self._lock = threading.Lock()
        self._groups: OrderedDict[_Key, Future[_Group]] = OrderedDict()

    def column(self, file: Path, identity: FileIdentity, group: int, column: str) -> Any:
        """The column of a row group, as ``pyarrow.ChunkedArray``.

        Args:
            file: The parquet file.
            identity: What ``identify_file`` gives for it now; what was kept of a file with
                another one is not used.
            group: Number of the row group.
            column: Its name.

        Raises:
            OSError: If reading fails.
            pyarrow.ArrowException: If the file is damaged.
        """
        key = (file, identity, group, column)
        with self._lock:
            future = self._groups.get(key)
            is_new = future is None
            if future is None:
                future = self._groups[key] = Future()
            self._groups.move_to_end(key)
        if is_new:
            try:
                future.set_result(_read_group(file, group, column, self._group_nbytes))
            except BaseException as error:
                with self._lock:
                    del self._groups[key]
                future.set_exception(error)
                raise
            with self._lock:
                self._drop()
        return future.result().column

    def _drop(self) -> None:
        """Keep the newest groups as long as they fit; those that are being read stay."""
        room, files = self._memory_nbytes, self._num_unpacked
        for key, future in reversed(list(self._groups.items())):
            if not future.done():
                continue
            group = future.result()
            files -= group.is_unpacked
            room -= 0 if group.is_unpacked else group.nbytes
            if files < 0 if group.is_unpacked else room < 0:
                del self._groups[key]


@dataclass(frozen=True, slots=True)
class _Group:
    column: Any
    nbytes: int
    is_unpacked: bool


def identify_file(file: Path) -> FileIdentity:
    """Modification time, size and number of a file.

    Raises:
        OSError: If it is gone or can't be asked.
    """
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


@contextmanager
def open_parquet(file: Path) -> Iterator[Any]:
    """Open a parquet file so that its pages are read one after the other, not a column at once.

    Raises:
        OSError: If reading fails.
        pyarrow.ArrowException: If it is no parquet file.
    """
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=_READ_NBYTES) as parquet:
        yield parquet


def read_batches(parquet: Any, group: int, column: str) -> Iterator[Any]:
    """The column of a row group as ``pyarrow.RecordBatch``, a few rows at a time.

    Args:
        parquet: What ``open_parquet`` gives.
        group: Number of the row group.
        column: Its name, or the path of one of its leaves.
    """
    return iter(
        parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[column], use_threads=False)
    )


def _read_group(file: Path, group: int, column: str, max_nbytes: int) -> _Group:
    with open_parquet(file) as parquet:
        batches: list[Any] = []
        nbytes = 0
        rest = read_batches(parquet, group, column)
        for batch in rest:
            batches.append(batch)
            nbytes += batch.nbytes
            if nbytes > max_nbytes:
                return _unpack(itertools.chain(batches, rest), batch.schema, file)
    return _Group(pa.chunked_array([batch.column(0) for batch in batches]), nbytes, False)


def _unpack(batches: Iterable[Any], schema: Any, file: Path) -> _Group:
    descriptor, name = tempfile.mkstemp(prefix="mmcot-", suffix=".arrow")
    os.close(descriptor)
    try:
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        table = pa.ipc.open_file(pa.memory_map(name)).read_all()
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise DiskFullError(
            f"{file}: a row group is too large to be kept in memory, and there is no room to "
            f"unpack it in {tempfile.gettempdir()}: set TMPDIR to a folder with room, or write the "
            "file with row groups of about a hundred rows"
        ) from error
    finally:
        Path(name).unlink()
    return _Group(table.column(0), table.nbytes, True)
