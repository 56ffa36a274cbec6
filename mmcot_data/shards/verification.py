"""Compare all that a feature set holds with its checksums, and find everything that is wrong."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.shards.containers import SUFFIXES
from mmcot_data.shards.index import INDEX, read_index
from mmcot_data.shards.location import LocalFolder, Location, find_location
from mmcot_data.shards.manifest import MANIFEST, Manifest, ShardCommit, commit_path, read_commit
from mmcot_data.shards.schema import ShardRecord, list_differences
from mmcot_data.shards.shard_verification import Description, Finding, verify_shards

__all__ = ["VerificationReport", "verify_features"]

_Progress = Callable[[int, int], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerificationReport:
    """What was looked at, and what was found."""

    path: str
    """The folder or URL."""
    problems: tuple[Finding, ...]
    """What is damaged, absent, unfinished or contradicts itself; none if all is well."""
    notes: tuple[Finding, ...]
    """What is unusual and does no harm."""
    num_shards: int
    """Shards that were read to their end."""
    num_rows: int
    """Rows in them."""
    nbytes: int
    """Bytes in them."""


def verify_features(
    path: str | Path,
    on_progress: _Progress | None = None,
    *,
    cache: Path | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> VerificationReport:
    """Read every byte of a feature set, and compare it with all that is said about it.

    Each shard is compared with its sha256, its rows with their checksums, the index with the rows,
    the commit records with the manifest. Without a readable manifest the shards are compared with
    their commit records. Several shards are read at a time.

    Args:
        path: The feature set's folder, or its URL: the files are then downloaded to the cache,
            which compares their sha256, and those in the cache are verified.
        on_progress: Called with the bytes of shards that were read and those of all; from several
            threads, but not at the same time.
        cache: As for ``open_features``.
        storage_options: As for ``open_features``.

    Raises:
        DiskFullError: If there is no room for the files of a URL.
    """
    location = find_location(path, cache=cache, storage_options=storage_options)
    return _Verification(location).run(on_progress or (lambda _done, _total: None))


class _Verification:
    """Looks at one part after the other, and collects what is found."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.folder = location.folder if isinstance(location, LocalFolder) else None
        self.problems: list[Finding] = []
        self.notes: list[Finding] = []

    def run(self, on_progress: _Progress) -> VerificationReport:
        commits = self._read_commits()
        index = None
        try:
            manifest = self.location.read_manifest()
        except (ShardError, OSError) as error:
            described = self._describe_without_manifest(commits, str(error))
        else:
            described = Description(MANIFEST, manifest.spec, manifest.plan, manifest.shards)
            self._check_manifest(manifest)
            index = self._read_index(manifest)
        read: list[ShardRecord] = []
        if described is not None:
            self._check_commits(commits, described)
            shards = verify_shards(self.location, described, index, on_progress)
            self.problems += shards.problems
            self.notes += shards.notes
            read = shards.read
            self._note_strays(described)
        return VerificationReport(
            path=str(self.location),
            problems=tuple(self.problems),
            notes=tuple(self.notes),
            num_shards=len(read),
            num_rows=sum(record.rows for record in read),
            nbytes=sum(record.file_nbytes for record in read),
        )

    def _problem(self, file: str, message: str, question_ids: Iterable[str] = ()) -> None:
        ids = tuple(question_ids)
        self.problems.append(Finding(file=file, message=message, question_ids=ids))

    def _read_commits(self) -> dict[str, ShardCommit]:
        """The commit records by the name of their shard; at a URL they are not looked for."""
        commits = {}
        for path in [] if self.folder is None else sorted(self.folder.glob("*.json")):
            if Path(path.stem).suffix in SUFFIXES.values():
                try:
                    commits[path.stem] = read_commit(path)
                except (ShardError, OSError) as error:
                    self._problem(
                        path.name,
                        f"{error}. Readers do not need this file",
                    )
        return commits

    def _describe_without_manifest(
        self, commits: Mapping[str, ShardCommit], reason: str
    ) -> Description | None:
        if not commits:
            self._problem(MANIFEST, reason)
            return None
        first = next(iter(commits.values()))
        records = [commit.shard for commit in commits.values()]
        complete = sum(self._size(record) == record.file_nbytes for record in records)
        total = math.ceil(first.plan.num_images / first.plan.shard_size)
        self._problem(MANIFEST, f"{reason}. {complete} of {total} shards are complete")
        shards = tuple(record for record in records if record.rows)
        return Description("the commit record", first.spec, first.plan, shards)

    def _size(self, record: ShardRecord) -> int:
        """Of a shard's file, 0 if it is absent."""
        assert self.folder is not None
        path = self.folder / record.file
        return path.stat().st_size if path.is_file() else 0

    def _check_manifest(self, manifest: Manifest) -> None:
        rows = sum(record.rows for record in manifest.shards)
        if rows != manifest.rows:
            self._problem(MANIFEST, f"it says {manifest.rows} rows, its shards have {rows}")
        if len({record.file for record in manifest.shards}) < len(manifest.shards):
            self._problem(MANIFEST, "it lists a shard more than once")

    def _read_index(self, manifest: Manifest) -> pl.DataFrame | None:
        """The index, if it is the one that the manifest describes."""
        digest, nbytes = manifest.index_sha256, manifest.index_nbytes
        try:
            path = self.location.file(INDEX, sha256=digest, nbytes=nbytes)
            index = read_index(path, manifest).drop("number")
        except (ShardError, OSError, pl.exceptions.PolarsError) as error:
            self._problem(INDEX, str(error))
            return None
        unlike = index.filter((pl.col("status") == "ok") != pl.col("row").is_not_null())
        if unlike.height:
            message = (
                "these questions have a picture with status ok and no features, or the reverse"
            )
            self._problem(INDEX, message, unlike["question_id"].unique(maintain_order=True))
        return index

    def _check_commits(self, commits: Mapping[str, ShardCommit], described: Description) -> None:
        records = {record.file: record for record in described.records}
        for file, commit in commits.items():
            record = records.get(file, ShardRecord.without_rows(file, failed=commit.shard.failed))
            differences = [
                *described.spec.differences(commit.spec),
                *described.plan.differences(commit.plan),
                *list_differences(asdict(record), asdict(commit.shard)),
            ]
            if differences:
                self._problem(
                    commit_path(Path(file)).name,
                    f"it is not of the extraction that {described.name} describes; delete it, and "
                    "run what made the feature set again. What differs:\n  "
                    + "\n  ".join(differences),
                )

    def _note_strays(self, described: Description) -> None:
        if self.folder is None:
            return
        files = {record.file for record in described.records}
        for path in sorted(self.folder.iterdir()):
            message = None
            if path.suffix == ".tmp":
                message = (
                    "half-written; if nothing writes into this folder now, delete it, or run what "
                    "made the feature set again, which does so"
                )
            elif path.suffix in SUFFIXES.values() and path.name not in files:
                message = f"it is not among the shards that {described.name} describes"
            if message is not None:
                self.notes.append(Finding(file=path.name, message=message))
