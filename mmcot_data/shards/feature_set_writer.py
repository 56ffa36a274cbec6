"""Write rows from anywhere as a feature set; what is interrupted continues.

Shape suffixes: N = rows of a shard, P = patches, D = feature width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmcot_data.shards.folder import (
    FolderContent,
    finish_folder,
    is_complete,
    start_writing,
    write_folder,
)
from mmcot_data.shards.manifest import (
    FailedImage,
    Manifest,
    ShardCommit,
    commit_path,
    write_commit,
)
from mmcot_data.shards.schema import FeatureSpec, PlanKey, ShardRecord
from mmcot_data.shards.writer import write_shard

__all__ = [
    "FeatureSource",
    "Progress",
    "ShardPart",
    "ShardRows",
    "write_feature_set",
]

Progress = Callable[[int, int], object]
"""Called with the number of rows that are done and that of all."""


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows of one shard.

    Args:
        features_NPD: In the spec's storage dtype.
        image_sha256_N32: uint8; zeros where the picture is not known.
        num_patches_N: int32; valid patches of each row.
    """

    features_NPD: npt.NDArray[np.floating[Any]]
    image_sha256_N32: npt.NDArray[np.uint8]
    num_patches_N: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPart:
    """What a shard is to hold."""

    file: str
    rows: int
    """0 where all of its pictures failed: it gets a commit record and no file."""
    pixel_sha256: tuple[str, ...]
    """Of each row; empty strings where it is not known."""
    failed: tuple[FailedImage, ...] = ()
    made_by: Mapping[str, Any] = field(default_factory=dict)
    """What computed the features; empty where it is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSource:
    """A feature set that is to be written."""

    spec: FeatureSpec
    plan: PlanKey
    request_sha256: str
    shards: tuple[ShardPart, ...]
    read: Callable[[int], ShardRows]
    """Gives the rows of a shard by its place in ``shards``; called one by one, in order."""
    index: pl.DataFrame
    """With the columns of ``INDEX_SCHEMA``."""


def write_feature_set(
    folder: Path, source: FeatureSource, on_progress: Progress | None = None
) -> Manifest:
    """Write a feature set; shards that are complete already are left as they are.

    Args:
        folder: The feature set's folder.
        source: What it is to hold.
        on_progress: Called after each shard.

    Raises:
        DiskFullError: If there is no room.
        FolderLockedError: If another process writes into the folder.
        ShardError: If the folder was made for other rows or is damaged, or if a row does not fit
            the spec or is not finite.
        SpecMismatchError: If the folder's features were made in another way.
    """
    with write_folder(folder, source.spec, source.plan) as content:
        found = [_find_complete(folder, source, content, part.file) for part in source.shards]
        if None in found:
            start_writing(folder, source.spec, source.plan)
        total = sum(part.rows for part in source.shards)
        done = sum(commit.shard.rows for commit in found if commit is not None)
        commits = []
        for number, commit in enumerate(found):
            if on_progress is not None:
                on_progress(done, total)
            if commit is None:
                commit = _write_shard(folder, source, number)
                done += commit.shard.rows
            commits.append(commit)
        if on_progress is not None:
            on_progress(done, total)
        return finish_folder(
            folder,
            spec=source.spec,
            plan=source.plan,
            request_sha256=source.request_sha256,
            commits=commits,
            index=source.index,
        )


def _find_complete(
    folder: Path, source: FeatureSource, content: FolderContent, file: str
) -> ShardCommit | None:
    commit = content.commits.get(file)
    is_there = commit is not None and is_complete(folder, commit, source.spec, source.plan)
    return commit if is_there else None


def _write_shard(folder: Path, source: FeatureSource, number: int) -> ShardCommit:
    part = source.shards[number]
    path = folder / part.file
    commit_path(path).unlink(missing_ok=True)
    digests: tuple[str, ...] = ()
    if part.rows:
        rows = source.read(number)
        digests = tuple(row.tobytes().hex() if row.any() else "" for row in rows.image_sha256_N32)
        record = write_shard(
            path,
            rows.features_NPD,
            rows.image_sha256_N32,
            source.spec,
            num_patches_N=rows.num_patches_N,
            failed=len(part.failed),
        )
    else:
        record = ShardRecord.without_rows(part.file, failed=len(part.failed))
    commit = ShardCommit(
        spec=source.spec,
        plan=source.plan,
        shard=record,
        image_sha256=digests,
        pixel_sha256=part.pixel_sha256,
        failed=part.failed,
        made_by=part.made_by,
    )
    write_commit(folder, commit)
    return commit
