"""Read every byte of a shard once, and compare its rows with their checksums.

Shape suffixes: N = images, B = rows of a block, P = patches, D = feature width.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.shards.columns import row_crc32
from mmcot_data.shards.schema import FeatureSpec, ShardRecord

__all__ = ["ScannedShard", "scan_shard"]

_BLOCK_NBYTES = 2 * 2**20
"""Fits a processor's cache: what is hashed is still there when its rows are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedShard:
    """What a shard's bytes are."""

    path: Path
    sha256: str
    """Hex digest of the whole file."""
    header: bytes
    """All that is before and after the features."""
    damaged_rows: tuple[int, ...]
    """Rows that differ from their checksums in the header, which may itself be damaged."""
    not_finite_rows: tuple[int, ...]
    """Rows with a value that is NaN or infinite."""

    @property
    def header_sha256(self) -> str:
        """Hex digest of the header."""
        return hashlib.sha256(self.header).hexdigest()


def scan_shard(
    path: Path,
    record: ShardRecord,
    spec: FeatureSpec,
    on_progress: Callable[[int], object] | None = None,
) -> ScannedShard:
    """Read a shard block by block, not by memory map: a disk that fails is then an error.

    Args:
        path: The file; it has the record's size.
        record: Where the rows and their checksums are in it.
        spec: Shape and dtype of a row.
        on_progress: Called after every block with the number of its bytes.

    Raises:
        ShardError: If the file gets shorter meanwhile.
        OSError: If it cannot be read.
    """
    report = on_progress or (lambda _: None)
    row_nbytes = record.data_nbytes // record.rows
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    buffer_BPD = np.empty((max(1, _BLOCK_NBYTES // row_nbytes), *spec.row_shape), dtype)
    crc_N = np.empty(record.rows, np.uint32)
    not_finite = []
    with path.open("rb") as file:
        head = file.read(record.data_offset)
        whole = hashlib.sha256(head)
        for start in range(0, record.rows, len(buffer_BPD)):
            block_BPD = buffer_BPD[: record.rows - start]
            if file.readinto(block_BPD.data.cast("B")) != block_BPD.nbytes:
                raise ShardError(f"{path} became shorter while it was read; verify it again")
            whole.update(block_BPD.data)
            crc_N[start : start + len(block_BPD)] = row_crc32(block_BPD)
            if not _are_finite(block_BPD):
                bad_B = ~np.isfinite(block_BPD).all(axis=(1, 2))
                not_finite += (start + np.flatnonzero(bad_B)).tolist()
            report(block_BPD.nbytes)
        tail = file.read()
        whole.update(tail)
        file.seek(record.crc_offset)
        expected_N = np.frombuffer(file.read(4 * record.rows), "<u4")
    report(len(head) + len(tail))
    return ScannedShard(
        path=path,
        sha256=whole.hexdigest(),
        header=head + tail,
        damaged_rows=tuple(np.flatnonzero(crc_N != expected_N).tolist()),
        not_finite_rows=tuple(not_finite),
    )


def _are_finite(values: npt.NDArray[np.floating[Any]]) -> bool:
    """Whether no value is NaN or infinite; ten times as fast as ``isfinite`` of float16.

    As integers without sign, the bits of minus infinity and of NaN below it are the largest; as
    those with sign, the bits of infinity and of NaN above it.
    """
    infinity = np.array(np.inf, values.dtype)
    unsigned, signed = (f"<{kind}{values.dtype.itemsize}" for kind in "ui")
    return bool(
        values.view(unsigned).max() < (-infinity).view(unsigned)
        and values.view(signed).max() < infinity.view(signed)
    )
