"""Write rows from anywhere as a feature set; what is interrupted continues.

Shape suffixes: N = rows of a shard, P = patches, D = feature width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmcot_data.shards.folder import (
    finish_folder,
    is_complete,
    start_writing,
    write_folder,
)
from mmcot_data.shards.folder_content import FolderContent
from mmcot_data.shards.manifest import (
    FailedImage,
    Manifest,
    ShardCommit,
    commit_name,
    write_commit,
)
from mmcot_data.shards.schema import FeatureSpec, PlanKey, ShardRecord
from mmcot_data.shards.writable import Place, find_writable
from mmcot_data.shards.writer import put_shard

__all__ = [
    "FeatureSource",
    "Progress",
    "ShardPart",
    "ShardRows",
    "write_feature_set",
    "write_part",
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
    folder: Place, source: FeatureSource, on_progress: Progress | None = None
) -> Manifest:
    """Write a feature set; shards that are complete already are left as they are.

    Args:
        folder: The feature set.
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


def write_part(
    place: Place, spec: FeatureSpec, plan: PlanKey, part: ShardPart, rows: ShardRows | None
) -> ShardCommit:
    """Write a shard, and then its commit record, which makes it complete.

    The caller has claimed the shard, or holds the folder's lock.

    Args:
        place: The feature set.
        spec: What made the features.
        plan: What decides which row stands in which shard.
        part: What the shard is to hold.
        rows: Its rows; None if it has none.

    Raises:
        ShardError: If a row does not fit the spec or is not finite.
        DiskFullError: If there is no room.
        OSError: If writing fails for another reason, or the claim was lost.
    """
    folder = find_writable(place)
    folder.remove(commit_name(part.file))
    digests: tuple[str, ...] = ()
    made_by = dict(part.made_by)
    if rows is None:
        folder.remove(part.file)
        record = ShardRecord.without_rows(part.file, failed=len(part.failed))
    else:
        digests = tuple(row.tobytes().hex() if row.any() else "" for row in rows.image_sha256_N32)
        record, etag = put_shard(
            folder,
            part.file,
            rows.features_NPD,
            rows.image_sha256_N32,
            spec,
            num_patches_N=rows.num_patches_N,
            failed=len(part.failed),
        )
        if etag is not None:
            made_by["etag"] = etag
    commit = ShardCommit(
        spec=spec,
        plan=plan,
        shard=record,
        image_sha256=digests,
        pixel_sha256=part.pixel_sha256,
        failed=part.failed,
        made_by=made_by,
    )
    write_commit(place, commit)
    return commit


def _find_complete(
    place: Place, source: FeatureSource, content: FolderContent, file: str
) -> ShardCommit | None:
    commit, found = content.commits.get(file), content.files.get(file)
    if commit is None or not is_complete(place, commit, found, source.spec, source.plan):
        return None
    return commit


def _write_shard(place: Place, source: FeatureSource, number: int) -> ShardCommit:
    part = source.shards[number]
    rows = source.read(number) if part.rows else None
    return write_part(place, source.spec, source.plan, part, rows)
