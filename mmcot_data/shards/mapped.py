"""The rows of all shards as one array in virtual memory.

Each shard's block of rows is a memory map of its file, and the blocks stand in one range of
addresses, every one at a multiple of the row size, so that a row of any shard is an element of one
array and a batch is a single ``take``. Nothing is copied and nothing private is allocated: the
pages are the operating system's cache of the files, shared by all processes.

Shape suffixes: G = rows of the array (with gaps between shards), P = patches, D = feature width.
"""

import ctypes
import errno
import hashlib
import math
import mmap
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError, SpecMismatchError
from mmcot_data.shards.columns import PAGE_NBYTES
from mmcot_data.shards.location import Location
from mmcot_data.shards.schema import FeatureSpec, ShardRecord, find_spec, list_differences

__all__ = ["Check", "MappedRows"]

Check = Literal["rows", "size"]
"""``rows``: a shard's header when it is opened, and each row when it is first read, are compared
with their checksums. ``size``: only the size of the file is."""

_NEW, _HINTED, _READ = 0, 1, 2
_MAP_FIXED = 0x10


class MappedRows:
    """Rows of shards, each opened when its first row is read; safe to pickle and to fork.

    Args:
        location: The feature set's folder.
        records: The shards' records in the manifest.
        spec: Shape and dtype of a row.
        check: What is compared with checksums.

    Raises:
        ShardError: If a record contradicts the spec.
    """

    def __init__(
        self,
        location: Location,
        records: Sequence[ShardRecord],
        spec: FeatureSpec,
        check: Check = "rows",
    ) -> None:
        self.records = tuple(records)
        self._location = location
        self._spec = spec
        self._check = check
        self.dtype = np.dtype(spec.dtype).newbyteorder("<")
        self._row_nbytes = math.prod(spec.row_shape) * self.dtype.itemsize
        for record in self.records:
            _check_record(f"{location}/{record.file}", record, self._row_nbytes)
            if record.data_offset % mmap.PAGESIZE != self._shift:
                raise ShardError(
                    f"{location}/{record.file}: memory of this machine has pages of "
                    f"{mmap.PAGESIZE} bytes, on which shards with so few features can't be mapped"
                )
        self.starts, self.zero = self._arrange()
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        own = ("rows", "_memory", "_state_G", "_crc_G", "_opened")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _arrange(self) -> tuple[npt.NDArray[np.int64], int]:
        """First row of every shard in the array, each on a page; and of the row of zeros."""
        step = mmap.PAGESIZE // math.gcd(self._row_nbytes, mmap.PAGESIZE)
        starts, end = [], 0
        for record in self.records:
            starts.append(end)
            end += step * math.ceil((self._shift + record.data_nbytes) / (step * self._row_nbytes))
        return np.array(starts, np.int64), end

    def _start(self) -> None:
        """Reserve addresses; pages that are no shard's read as zeros."""
        shift, nbytes = self._shift, (self.zero + 1) * self._row_nbytes
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._memory = mmap.mmap(-1, shift + nbytes, flags, mmap.PROT_READ)
        flat = np.frombuffer(self._memory, self.dtype, nbytes // self.dtype.itemsize, shift)
        self.rows: npt.NDArray[np.floating[Any]] = flat.reshape(-1, *self._spec.row_shape)
        """The array (G, P, D), read-only. Only what ``prepare`` was called for may be read; the
        row ``zero`` is always zeros."""
        self._state_G = np.zeros(self.zero + 1, np.uint8)  # _NEW; zeros take memory when changed
        self._state_G[self.zero] = _READ
        self._crc_G = np.zeros(self.zero, np.uint32)
        self._opened = [False] * len(self.records)

    def take(self, rows: npt.NDArray[np.int64], out_NPD: npt.NDArray[np.floating[Any]]) -> None:
        """Copy rows into a contiguous array; those that are read first are checked in it.

        Raises:
            ShardError: If a shard or a row is damaged.
        """
        state_N = self._state_G[rows]
        if state_N.min(initial=_READ) == _READ:
            self.rows.take(rows, axis=0, out=out_NPD, mode="clip")
            return
        self.will_need(rows)
        for item, (row, state) in enumerate(zip(rows.tolist(), state_N.tolist(), strict=True)):
            out_NPD[item] = self.rows[row]
            if state != _READ:  # while the disk brings the rows after it
                self._check_row(row, out_NPD[item])

    def prepare(self, rows: npt.NDArray[np.int64]) -> None:
        """Make rows ready to be read in place: open their shards and check those that are new.

        Raises:
            ShardError: If a shard or a row is damaged.
        """
        self.will_need(rows)
        for row in rows[self._state_G[rows] != _READ].tolist():
            self._check_row(row, self.rows[row])

    def will_need(self, rows: npt.NDArray[np.int64], *, again: bool = False) -> None:
        """Start reading rows from the disk, and return at once.

        A map that is not in memory is read 7 to 30 times faster with this hint than without it; in
        memory it costs as much as the copy. So each row is hinted at once.

        Args:
            rows: Rows of the array.
            again: Hint at them even so, since they may have left the memory.
        """
        wanted = rows != self.zero if again else self._state_G[rows] == _NEW
        for row in rows[wanted].tolist():
            self._open(self._number(row))
            start = self._shift + row * self._row_nbytes
            page = start - start % mmap.PAGESIZE
            self._memory.madvise(mmap.MADV_WILLNEED, page, start + self._row_nbytes - page)
            self._state_G[row] = max(self._state_G[row], _HINTED)

    def name(self, number: int) -> str:
        """Where a shard is, for messages."""
        return f"{self._location}/{self.records[number].file}"

    def path(self, number: int) -> Path:
        """A shard's file on the local disk; one at a URL is downloaded.

        Raises:
            ShardError: If it is absent or has another size than the manifest says.
        """
        record = self.records[number]
        return self._location.file(record.file, sha256=record.sha256, nbytes=record.file_nbytes)

    @property
    def _shift(self) -> int:
        """Bytes between a page and the features: 0 unless pages are larger than 4096."""
        return self.records[0].data_offset % mmap.PAGESIZE if self.records else 0

    def _number(self, row: int) -> int:
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _open(self, number: int) -> None:
        if self._opened[number]:
            return
        record, path, start = self.records[number], self.path(number), int(self.starts[number])
        with path.open("rb") as file:
            if self._check == "rows":
                head = file.read(record.data_offset)
                file.seek(record.data_offset + record.data_nbytes)
                self._check_header(number, path, head + file.read())
                file.seek(record.crc_offset)
                crc = np.frombuffer(file.read(4 * record.rows), "<u4")
                self._crc_G[start : start + record.rows] = crc
            address = self.rows.ctypes.data + start * self._row_nbytes - self._shift
            offset = record.data_offset - self._shift
            try:
                _map_file(file.fileno(), address, record.data_nbytes + self._shift, offset)
            except OSError as error:
                if error.errno != errno.ENOMEM:
                    raise
                raise ShardError(
                    f"{path}: the system gives this process no more memory maps, of which every "
                    f"shard takes one; this feature set has {len(self.records):,} shards. Permit "
                    "more (as root: sysctl -w vm.max_map_count=1000000), or make it anew with a "
                    "larger --shard-size"
                ) from error
        self._opened[number] = True

    def _check_row(self, row: int, row_PD: npt.NDArray[np.floating[Any]]) -> None:
        if self._check == "rows" and zlib.crc32(row_PD.data) != self._crc_G[row]:
            number = self._number(row)
            raise ShardError(
                f"{self.name(number)} is damaged: the checksum of row {row - self.starts[number]} "
                "is wrong; `mmcot-data verify` lists all that is damaged; "
                f"{self._location.advice(self.path(number))}"
            )
        self._state_G[row] = _READ

    def _check_header(self, number: int, path: Path, header: bytes) -> None:
        """Compare what describes the rows with the manifest: a shard of another set is refused."""
        if hashlib.sha256(header).hexdigest() == self.records[number].header_sha256:
            return
        try:
            differences = list_differences(self._spec.to_json(), find_spec(header))
        except ValueError as error:
            raise ShardError(
                f"{self.name(number)} is damaged: the spec in it can't be read; "
                f"{self._location.advice(path)}"
            ) from error
        if differences:
            raise SpecMismatchError(
                f"{self.name(number)} is a shard of another feature set, or damaged; "
                f"{self._location.advice(path)}. What differs:\n  " + "\n  ".join(differences)
            )
        raise ShardError(
            f"{self.name(number)} is damaged, or a shard of another extraction: its header is not "
            f"the one that manifest.json describes; {self._location.advice(path)}"
        )


def _check_record(name: str, record: ShardRecord, row_nbytes: int) -> None:
    expected = record.rows * row_nbytes
    end = max(record.data_offset + expected, record.crc_offset + 4 * record.rows)
    if (
        record.data_nbytes != expected
        or end > record.file_nbytes
        or record.data_offset % PAGE_NBYTES
    ):
        raise ShardError(
            f"{name}: the manifest is damaged: {record.data_nbytes} bytes of features at "
            f"{record.data_offset} and checksums at {record.crc_offset} in a file of "
            f"{record.file_nbytes}, expected {expected} for {record.rows} rows"
        )


def _map_file(descriptor: int, address: int, nbytes: int, offset: int) -> None:
    """Map a part of a file, read-only, at an address that this process has reserved."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_ssize_t]
    flags = mmap.MAP_SHARED | _MAP_FIXED
    if libc.mmap(address, nbytes, mmap.PROT_READ, flags, descriptor, offset) != address:
        code = ctypes.get_errno()
        raise OSError(code, f"mmap: {os.strerror(code)}")
