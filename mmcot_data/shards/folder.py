"""A feature set's folder from a writer's side: what is complete, what fits, how it is finished."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import polars as pl

from mmcot_data.errors import ShardError, SpecMismatchError
from mmcot_data.files import file_sha256, write_parquet
from mmcot_data.shards.index import INDEX
from mmcot_data.shards.lock import lock_folder
from mmcot_data.shards.manifest import (
    MANIFEST,
    Manifest,
    ShardCommit,
    commit_path,
    read_commit,
    read_manifest,
    write_manifest,
)
from mmcot_data.shards.schema import FeatureSpec, PlanKey

__all__ = ["check_folder", "finish_folder", "read_complete", "write_folder"]


@contextmanager
def write_folder(folder: Path, spec: FeatureSpec, key: PlanKey) -> Iterator[None]:
    """Write into a feature set, alone: its folder is locked, fits, and holds nothing half-written.

    Raises:
        FolderLockedError: If another process writes into it.
        SpecMismatchError: As ``check_folder``.
        ShardError: As ``check_folder``; or if it is an artifact root.
    """
    if (folder / "questions.parquet").exists() or any(folder.glob(f"*/{MANIFEST}")):
        raise ShardError(
            f"{folder} is an artifact root, expected the folder of a feature set: give one in it, "
            f"as {folder / 'NAME'}"
        )
    with lock_folder(folder):
        check_folder(folder, spec, key)
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        yield


def check_folder(folder: Path, spec: FeatureSpec, key: PlanKey) -> None:
    """Refuse a folder whose manifest or commit records belong to another request.

    Raises:
        SpecMismatchError: If its features were made in another way; lists what differs.
        ShardError: If it was made for other pictures or in other sizes, lists what differs; or if
            a record is damaged or of another format version.
    """
    advice = f"Choose another --out, or delete {folder} to make it anew."
    for found_spec, found_key in _found(folder):
        if differences := spec.differences(found_spec):
            raise SpecMismatchError(
                f"{folder} holds features that were made in another way:\n  "
                + "\n  ".join(differences)
                + f"\n{advice}"
            )
        if differences := key.differences(found_key):
            raise ShardError(
                f"{folder} was made for other pictures or in other sizes:\n  "
                + "\n  ".join(differences)
                + "\nAsk for what it was made for (pictures or file, --split, --format, "
                f"--shard-size, --batch-size) to continue it. {advice}"
            )


def read_complete(folder: Path, file: str, spec: FeatureSpec, key: PlanKey) -> ShardCommit | None:
    """The commit record of a shard, if the shard is complete and belongs to the request.

    Raises:
        ShardError: If the record is damaged.
    """
    path = folder / file
    if not commit_path(path).is_file():
        return None
    commit = read_commit(commit_path(path))
    size = path.stat().st_size if path.is_file() else 0
    if (commit.spec, commit.plan, commit.shard.file_nbytes) != (spec, key, size):
        return None
    return commit


def finish_folder(
    folder: Path,
    *,
    spec: FeatureSpec,
    plan: PlanKey,
    request_sha256: str,
    commits: Sequence[ShardCommit],
    index: pl.DataFrame,
) -> Manifest:
    """Check every shard's bytes, write index.parquet, and last manifest.json.

    Where the folder is finished already and holds the same, nothing is written.

    Args:
        folder: The feature set, with all of its shards and commit records.
        spec: What made the features.
        plan: What decided which row stands in which shard.
        request_sha256: Digest of the (question id, role, image) rows that were asked for.
        commits: Of all shards, in the plan's order.
        index: One row per question and role, with the columns of ``INDEX_SCHEMA``.

    Raises:
        ShardError: If a shard's bytes are not those of its commit record.
        DiskFullError: If there is no room.
    """
    shards = tuple(commit.shard for commit in commits if commit.shard.rows)
    if (folder / MANIFEST).is_file() and (folder / INDEX).is_file():
        found = read_manifest(folder)
        same = replace(found, spec=spec, plan=plan, request_sha256=request_sha256, shards=shards)
        if found == same and found.index_sha256 == file_sha256(folder / INDEX):
            return found
    for record in shards:
        path = folder / record.file
        if (sha256 := file_sha256(path)) != record.sha256:
            raise ShardError(
                f"{path} is damaged: its sha256 is {sha256}, its commit record says "
                f"{record.sha256}; delete {commit_path(path)} and run the same command again"
            )
    (folder / MANIFEST).unlink(missing_ok=True)
    write_parquet(folder / INDEX, index)
    manifest = Manifest(
        spec=spec,
        plan=plan,
        request_sha256=request_sha256,
        index_sha256=file_sha256(folder / INDEX),
        index_nbytes=(folder / INDEX).stat().st_size,
        rows=sum(record.rows for record in shards),
        shards=shards,
    )
    write_manifest(folder, manifest)
    return manifest


def _found(folder: Path) -> list[tuple[FeatureSpec, PlanKey]]:
    found = []
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder)
        found.append((manifest.spec, manifest.plan))
    commits = [read_commit(path) for path in sorted(folder.glob("*-of-*.json"))]
    return found + [(commit.spec, commit.plan) for commit in commits]
