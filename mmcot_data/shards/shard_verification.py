"""Verify one shard: read every byte of it once, then say what is wrong with it.

Shape suffixes: N = images, B = rows of a block, P = patches, D = feature width.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.shards.columns import row_crc32
from mmcot_data.shards.containers import read_columns
from mmcot_data.shards.schema import FeatureSpec, ShardRecord, find_spec, list_differences

__all__ = ["Finding", "ScannedShard", "ShardVerifier", "find_question_ids", "scan_shard"]

_BLOCK_NBYTES = 2 * 2**20
"""Fits a processor's cache: what is hashed is still there when its rows are looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something about a file of a feature set."""

    file: str
    """Its name in the folder."""
    message: str
    """What is the matter, and what to do."""
    rows: tuple[int, ...] = ()
    """Rows of the shard that it concerns."""
    question_ids: tuple[str, ...] = ()
    """Questions that it concerns; empty where the index cannot tell."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedShard:
    """What a shard's bytes are."""

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
            whole.update(block_BPD)
            crc_N[start : start + len(block_BPD)] = row_crc32(block_BPD)
            if not np.isfinite(block_BPD).all():
                bad_B = ~np.isfinite(block_BPD).all(axis=(1, 2))
                not_finite += (start + np.flatnonzero(bad_B)).tolist()
            report(block_BPD.nbytes)
        tail = file.read()
        whole.update(tail)
        file.seek(record.crc_offset)
        expected_N = np.frombuffer(file.read(4 * record.rows), "<u4")
    report(len(head) + len(tail))
    return ScannedShard(
        sha256=whole.hexdigest(),
        header=head + tail,
        damaged_rows=tuple(np.flatnonzero(crc_N != expected_N).tolist()),
        not_finite_rows=tuple(not_finite),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardVerifier:
    """Says what is wrong with the shards of a feature set."""

    spec: FeatureSpec
    records: Sequence[ShardRecord]
    """Of all the shards."""
    described_by: str
    """What the records are from, for messages: ``manifest.json``."""
    index: pl.DataFrame | None
    """index.parquet; None where it cannot be trusted."""
    repair: str
    """What to do about a damaged file, for messages."""

    def finding(self, record: ShardRecord, message: str, rows: Sequence[int]) -> Finding:
        """A finding about rows of a shard, with their questions."""
        question_ids: tuple[str, ...] = ()
        if self.index is not None:
            concerned = (pl.col("shard") == record.file) & pl.col("row").is_in(list(rows))
            column = self.index.filter(concerned)["question_id"]
            question_ids = tuple(column.unique(maintain_order=True))
        return Finding(
            file=record.file, message=message, rows=tuple(rows), question_ids=question_ids
        )

    def problems(self, record: ShardRecord, path: Path, found: ScannedShard) -> Iterator[Finding]:
        """What is wrong with a shard.

        Args:
            record: What it should be.
            path: Where it is.
            found: What it is.
        """
        everything = range(record.rows)
        if found.header_sha256 != record.header_sha256:
            yield self.finding(record, self._explain_header(found), everything)
            return  # the checksums of the rows are not to be trusted
        try:
            differences = list_differences(self.spec.to_json(), find_spec(found.header))
        except ValueError:
            differences = ["it can't be read"]
        if differences:
            lines = "\n  ".join(differences)
            message = f"its spec is not that of {self.described_by}; {self.repair}:\n  {lines}"
            yield self.finding(record, message, everything)
        if found.damaged_rows:
            message = (
                f"{len(found.damaged_rows)} of {record.rows} rows differ from their checksums; "
                f"{self.repair}"
            )
            yield self.finding(record, message, found.damaged_rows)
        elif found.sha256 != record.sha256:
            message = (
                f"its sha256 is {found.sha256}, {self.described_by} says {record.sha256}, though "
                f"all rows agree with their checksums; {self.repair}"
            )
            yield self.finding(record, message, everything)
        if rows := sorted(set(found.not_finite_rows) - set(found.damaged_rows)):
            message = (
                f"{len(rows)} of {record.rows} rows hold values that are NaN or infinite; make the "
                "feature set anew"
            )
            yield self.finding(record, message, rows)
        if self.index is not None:
            yield from self._compare_index(record, path, self.index)

    def notes(self, record: ShardRecord) -> Iterator[Finding]:
        """What is unusual about a shard."""
        if self.index is None:
            return
        used = self.index.filter(pl.col("shard") == record.file)["row"]
        if unused := sorted(set(range(record.rows)) - set(used)):
            message = f"{len(unused)} of {record.rows} rows belong to no question"
            yield self.finding(record, message, unused)

    def _explain_header(self, found: ScannedShard) -> str:
        for record in self.records:
            if record.header_sha256 == found.header_sha256:
                return f"it is the shard {record.file} under another name; {self.repair}"
        try:
            differences = list_differences(self.spec.to_json(), find_spec(found.header))
        except ValueError:
            return f"it is damaged, the spec in it can't be read; {self.repair}"
        if differences:
            lines = "\n  ".join(differences)
            return f"it is a shard of another feature set, or damaged; {self.repair}:\n  {lines}"
        return (
            "it is damaged, or a shard of another extraction: its header is not the one that "
            f"{self.described_by} describes; {self.repair}"
        )

    def _compare_index(
        self, record: ShardRecord, path: Path, index: pl.DataFrame
    ) -> Iterator[Finding]:
        columns = read_columns(path)
        digests = (row.tobytes() for row in columns.image_sha256_N32)
        held = pl.DataFrame(
            {
                "row": range(record.rows),
                "held_sha256": [digest.hex() if any(digest) else None for digest in digests],
                "held_patches": columns.num_patches_N,
            },
            schema_overrides={"row": pl.Int32, "held_sha256": pl.String},
        )
        agrees = pl.col("image_sha256").eq_missing(pl.col("held_sha256")) & pl.col(
            "num_patches"
        ).eq_missing(pl.col("held_patches"))
        named = index.filter(pl.col("shard") == record.file).join(held, on="row")
        if rows := named.filter(~agrees)["row"].unique().sort().to_list():
            message = (
                f"index.parquet says of {len(rows)} rows that they are other pictures, or have "
                f"other numbers of patches, than the shard does; {self.repair}"
            )
            yield self.finding(record, message, rows)
