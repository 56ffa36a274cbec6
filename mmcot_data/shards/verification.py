"""Compare all that a feature set holds with its checksums, and find everything that is wrong."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.shards.containers import SUFFIXES
from mmcot_data.shards.index import INDEX, INDEX_SCHEMA, read_index
from mmcot_data.shards.location import LocalFolder, Location, find_location
from mmcot_data.shards.manifest import MANIFEST, Manifest, ShardCommit, commit_path, read_commit
from mmcot_data.shards.mapped import MappedRows
from mmcot_data.shards.schema import FeatureSpec, PlanKey, ShardRecord, list_differences
from mmcot_data.shards.shard_verification import Finding, find_rows, judge_shard
from mmcot_data.shards.shard_scan import ScannedShard, scan_shard

__all__ = ["VerificationReport", "verify_features"]

Progress = Callable[[int, int], object]
"""Called with the bytes that were read and those of all shards."""


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
    """Shards that were read, to their end."""
    num_rows: int
    """Rows in them."""
    nbytes: int
    """Bytes in them."""


def verify_features(
    path: str | Path,
    on_progress: Progress | None = None,
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
            which compares their sha256, and those in the cache are compared.
        on_progress: Called from several threads, but not at the same time.
        cache: As for ``open_features``.
        storage_options: As for ``open_features``.

    Raises:
        DiskFullError: If there is no room for the files of a URL.
    """
    location = find_location(path, cache=cache, storage_options=storage_options)
    folder = location.folder if isinstance(location, LocalFolder) else None
    manifest = None
    problems: list[Finding] = []
    notes: list[Finding] = []
    try:
        manifest = location.read_manifest()
    except (ShardError, OSError) as error:
        problems.append(Finding(file=MANIFEST, message=str(error)))
    commits, damaged = _read_commits(folder)
    problems += damaged
    index = None
    if manifest is not None:
        problems += _check_manifest(manifest)
        index, damaged = _read_index(location, manifest)
        problems += damaged
    expected = _find_expected(manifest, commits)
    for commit in commits:
        ...
