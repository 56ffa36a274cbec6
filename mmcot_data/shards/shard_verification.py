"""Verify the shards of a feature set: all that is wrong with each of them."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.shards.containers import read_columns
from mmcot_data.shards.location import LocalFolder, Location
from mmcot_data.shards.mapped import MappedRows
from mmcot_data.shards.schema import (
    FeatureSpec,
    PlanKey,
    ShardRecord,
    find_spec,
    list_differences,
)
from mmcot_data.shards.shard_scan import ScannedShard, scan_shard

__all__ = ["Description", "Finding", "VerifiedShards", "questions_of", "verify_shards"]


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


@dataclass(frozen=True, slots=True)
class Description:
    """What a feature set says about its shards."""

    name: str
    """Where it says so, for messages."""
    spec: FeatureSpec
    plan: PlanKey
    records: tuple[ShardRecord, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedShards:
    """What was found in the shards."""

    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    read: list[ShardRecord] = field(default_factory=list)
    """Those that were read to their end."""


def verify_shards(
    location: Location,
    described: Description,
    index: pl.DataFrame | None,
    on_progress: Callable[[int, int], object],
) -> VerifiedShards:
    """Read all shards, several at a time, and compare them with what is said about them.

    Args:
        location: Where they are.
        described: What they should be.
        index: index.parquet; None where it is absent or damaged.
        on_progress: Called with the bytes that were read and those of all shards; from several
            threads, but not at the same time.
    """
    total = sum(record.file_nbytes for record in described.records)
    done, lock = 0, threading.Lock()

    def add(nbytes: int) -> None:
        nonlocal done
        with lock:
            done += nbytes
            on_progress(done, total)

    threads = ThreadPoolExecutor()

    def start(record: ShardRecord) -> Future[ScannedShard]:
        try:
            path = _find_shard(location, record, described)
        except (ShardError, OSError) as error:
            absent: Future[ScannedShard] = Future()
            absent.set_exception(error)
            return absent
        return threads.submit(scan_shard, path, record, described.spec, add)

    verified = VerifiedShards()
    try:
        scans = [start(record) for record in described.records]
        for record, scan in zip(described.records, scans, strict=True):
            shard = _Shard(record, described, index)
            try:
                found = scan.result()
            except (ShardError, OSError) as error:
                verified.problems.append(shard.finding(str(error), range(record.rows)))
                continue
            verified.read.append(record)
            verified.problems.extend(shard.problems(found, location.advice(found.path)))
            verified.notes.extend(shard.notes())
    finally:
        threads.shutdown(cancel_futures=True)
    return verified


def questions_of(
    index: pl.DataFrame | None, record: ShardRecord, rows: Sequence[int]
) -> tuple[str, ...]:
    """The ids of the questions that rows of a shard belong to; none without an index."""
    if index is None:
        return ()
    concerned = (pl.col("shard") == record.file) & pl.col("row").is_in(list(rows))
    return tuple(index.filter(concerned)["question_id"].unique(maintain_order=True))


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard and what it should be."""

    record: ShardRecord
    described: Description
    index: pl.DataFrame | None

    def problems(self, found: ScannedShard, advice: str) -> Iterator[Finding]:
        """What is damaged or contradicts what is said about it."""
        record, name = self.record, self.described.name
        everything = range(record.rows)
        if found.header_sha256 != record.header_sha256:
            yield self.finding(self._explain_header(found, advice), everything)
            return  # the rows' checksums are in it
        differences = _spec_differences(self.described.spec, found.header)
        if differences is None:
            yield self.finding(f"it does not hold its spec; {advice}", everything)
            return
        if differences:
            message = f"its spec is not that of {name}; {advice}. What differs:\n  "
            yield self.finding(message + "\n  ".join(differences), everything)
        if rows := found.damaged_rows:
            message = f"{len(rows)} of {record.rows} rows differ from their checksums; {advice}"
            yield self.finding(message, rows)
        elif found.sha256 != record.sha256:
            message = (
                f"its sha256 is {found.sha256}, {name} says {record.sha256}, though all rows agree "
                f"with their checksums; {advice}"
            )
            yield self.finding(message, everything)
        if bad := sorted(set(found.not_finite_rows) - set(found.damaged_rows)):
            message = (
                f"{len(bad)} of {record.rows} rows hold values that are NaN or infinite; make the "
                "feature set anew"
            )
            yield self.finding(message, bad)
        if self.index is not None and (unlike := self._rows_unlike(self.index, found.path)):
            message = (
                f"{len(unlike)} of {record.rows} rows are of other pictures, or have other numbers "
                "of patches, than index.parquet says; make the feature set anew"
            )
            yield self.finding(message, unlike)

    def notes(self) -> Iterator[Finding]:
        """What is unusual and does no harm."""
        if self.index is None:
            return
        used = self.index.filter(pl.col("shard") == self.record.file)["row"]
        if unused := sorted(set(range(self.record.rows)) - set(used)):
            message = f"{len(unused)} of {self.record.rows} rows belong to no question"
            yield self.finding(message, unused)

    def finding(self, message: str, rows: Sequence[int]) -> Finding:
        """A finding about some of the rows, with their questions."""
        ids = questions_of(self.index, self.record, rows)
        return Finding(file=self.record.file, message=message, rows=tuple(rows), question_ids=ids)

    def _explain_header(self, found: ScannedShard, advice: str) -> str:
        for record in self.described.records:
            if record.header_sha256 == found.header_sha256:
                return f"it is the shard {record.file} under this name; {advice}"
        differences = _spec_differences(self.described.spec, found.header)
        if differences is None:
            return f"it is damaged: the spec in it can't be read; {advice}"
        if differences:
            message = f"it is a shard of another feature set, or damaged; {advice}. What differs:"
            return message + "\n  " + "\n  ".join(differences)
        return (
            "it is damaged, or a shard of another extraction: its header is not the one that "
            f"{self.described.name} describes; {advice}"
        )

    def _rows_unlike(self, index: pl.DataFrame, path: Path) -> list[int]:
        """Rows of which the index says something else than the shard."""
        columns = read_columns(path)
        digests = (row.tobytes() for row in columns.image_sha256_N32)
        held = pl.DataFrame(
            {
                "row": range(self.record.rows),
                "held_sha256": [digest.hex() if any(digest) else None for digest in digests],
                "held_patches": columns.num_patches_N,
            },
            schema_overrides={"row": pl.Int32, "held_sha256": pl.String},
        )
        is_like = pl.col("image_sha256").eq_missing(pl.col("held_sha256")) & (
            pl.col("num_patches").eq_missing(pl.col("held_patches"))
        )
        named = index.filter(pl.col("shard") == self.record.file).join(held, on="row")
        return sorted(set(named.filter(~is_like)["row"]))


def _find_shard(location: Location, record: ShardRecord, described: Description) -> Path:
    """A shard's file; one at a URL is downloaded.

    Raises:
        ShardError: If it is absent or has another size, or if its record is impossible.
    """
    MappedRows(location, [record], described.spec)  # refuses an impossible record
    if not isinstance(location, LocalFolder):
        digest, nbytes = record.sha256, record.file_nbytes
        return location.file(record.file, sha256=digest, nbytes=nbytes)
    path = location.folder / record.file
    if not path.is_file():
        raise ShardError(
            "it is absent; restore it from a copy, or run what made the feature set again"
        )
    if (size := path.stat().st_size) == record.file_nbytes:
        return path
    message = (
        f"it has {size} bytes, {described.name} says {record.file_nbytes}; {location.advice(path)}"
    )
    if differences := _spec_differences(described.spec, path.read_bytes()):
        message += ". It is a shard of another feature set. What differs:\n  "
        message += "\n  ".join(differences)
    raise ShardError(message)


def _spec_differences(spec: FeatureSpec, content: bytes) -> list[str] | None:
    """What differs between a spec and that in a shard; None where it can't be read there."""
    try:
        return list_differences(spec.to_json(), find_spec(content))
    except ValueError:
        return None
