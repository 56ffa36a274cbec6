"""A feature set's folder from a writer's side: what is complete, what fits, how it is finished."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import polars as pl

from mmcot_data.errors import FolderLockedError, ShardError, SpecMismatchError
from mmcot_data.shards.folder_content import FolderContent, read_folder
from mmcot_data.shards.index import INDEX
from mmcot_data.shards.manifest import (
    MANIFEST,
    PLAN,
    Manifest,
    PlanRecord,
    ShardCommit,
    commit_name,
    parse_commit,
    parse_manifest,
    write_manifest,
    write_plan,
)
from mmcot_data.shards.schema import FeatureSpec, PlanKey
from mmcot_data.shards.writable import Place, StoredFile, WritableFolder, find_writable

__all__ = [
    "check_folder",
    "finish_folder",
    "is_complete",
    "read_complete",
    "refuse_artifact_root",
    "start_writing",
    "write_folder",
]


@contextmanager
def write_folder(place: Place, spec: FeatureSpec, key: PlanKey) -> Iterator[FolderContent]:
    """Write into a feature set, alone: its folder is locked, fits, and holds nothing half-written.

    Raises:
        FolderLockedError: If another process writes into it, or makes shards of it.
        SpecMismatchError: As ``check_folder``.
        ShardError: As ``check_folder``; or if it is an artifact root.
    """
    folder = find_writable(place)
    refuse_artifact_root(place)
    with folder.lock():
        if (worker := folder.find_worker()) is not None:
            raise FolderLockedError(
                f"{folder} is being written by {worker}; wait until it has finished, or choose "
                "another folder"
            )
        content = read_folder(place)
        check_folder(place, content, spec, key)
        folder.remove_half_written()
        yield content


def refuse_artifact_root(place: Place) -> None:
    """Keep the folder of a feature set apart from the one that holds feature sets.

    Raises:
        ShardError: If the folder is an artifact root.
    """
    files = find_writable(place).files()
    if "questions.parquet" in files or any(name.endswith(f"/{MANIFEST}") for name in files):
        raise ShardError(
            f"{place} is an artifact root, expected the folder of a feature set: give one in it, "
            f"as {place}/NAME"
        )


def check_folder(folder: Place, content: FolderContent, spec: FeatureSpec, key: PlanKey) -> None:
    """Refuse a folder whose records belong to another request.

    Raises:
        SpecMismatchError: If its features were made in another way; lists what differs.
        ShardError: If it was made for other pictures or in other sizes, lists what differs.
    """
    advice = f"Choose another --out, or delete {folder} to make it anew."
    for found_spec, found_key in content.requests():
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
                f"--shard-size) to continue it. {advice}"
            )


def start_writing(
    place: Place, spec: FeatureSpec, key: PlanKey, unread: Iterable[tuple[str, str]] = ()
) -> None:
    """Note what an unfinished folder is being made for; a finished one becomes unfinished.

    Whoever wants to write something else into it is refused from now on, as long as there is a
    worker or a complete shard.
    """
    write_plan(place, PlanRecord(spec=spec, plan=key, unread=tuple(unread)))
    find_writable(place).remove(MANIFEST)


def read_complete(place: Place, file: str, spec: FeatureSpec, key: PlanKey) -> ShardCommit | None:
    """The commit record of a shard, if the shard is complete and belongs to the request.

    Raises:
        ShardError: If the record is damaged.
    """
    folder = find_writable(place)
    name = commit_name(file)
    data = folder.read([name]).get(name)
    if data is None:
        return None
    commit = parse_commit(data, f"{folder}/{name}")
    return commit if is_complete(place, commit, folder.find(file), spec, key) else None


def is_complete(
    place: Place, commit: ShardCommit, found: StoredFile | None, spec: FeatureSpec, key: PlanKey
) -> bool:
    """Whether a commit record belongs to the request and its shard is there.

    Its size must be right, and in object storage it must be the one of the record, not one that
    another process put there.

    Args:
        place: The feature set.
        commit: The record.
        found: The shard's file; None if there is none.
        spec: What makes the features.
        key: What decides which row stands in which shard.
    """
    nbytes = 0 if found is None else found.nbytes
    if (commit.spec, commit.plan, commit.shard.file_nbytes) != (spec, key, nbytes):
        return False
    return (
        found is None
        or None in (found.etag, commit.etag)
        or _has_bytes(find_writable(place), commit, found)
    )


def _has_bytes(folder: WritableFolder, commit: ShardCommit, found: StoredFile) -> bool:
    """Whether a shard has the bytes of its record, by what the store calls them if that is known.

    The store may call a copy otherwise; then its digest decides.
    """
    if found.etag is not None and found.etag == commit.etag:
        return True
    return folder.sha256(commit.shard.file) == commit.shard.sha256


def finish_folder(
    place: Place,
    *,
    spec: FeatureSpec,
    plan: PlanKey,
    request_sha256: str,
    commits: Sequence[ShardCommit],
    index: pl.DataFrame,
) -> Manifest:
    """Check every shard's bytes, write index.parquet, and last manifest.json.

    On a disk the bytes are read; in object storage it is compared what the store calls them, which
    it did when it received them with their checksum. Where the folder is finished already and holds
    the same, nothing is written.

    Args:
        place: The feature set, with all of its shards and commit records; locked.
        spec: What made the features.
        plan: What decided which row stands in which shard.
        request_sha256: Digest of the (question id, role, image) rows that were asked for.
        commits: Of all shards, in the plan's order.
        index: One row per question and role, with the columns of ``INDEX_SCHEMA``.

    Raises:
        ShardError: If a shard's bytes are not those of its commit record.
        DiskFullError: If there is no room.
    """
    folder = find_writable(place)
    files = folder.files()
    shards = tuple(commit.shard for commit in commits if commit.shard.rows)
    if MANIFEST in files and INDEX in files:
        found = parse_manifest(folder.read([MANIFEST])[MANIFEST], f"{folder}/{MANIFEST}")
        same = replace(found, spec=spec, plan=plan, request_sha256=request_sha256, shards=shards)
        if found == same and found.index_sha256 == folder.sha256(INDEX):
            folder.clear_claims()
            return found
    for commit in commits:
        if commit.shard.rows:
            _check_bytes(folder, commit, files)
    folder.remove(MANIFEST)
    data = io.BytesIO()
    index.write_parquet(data, metadata={})
    folder.write(INDEX, [data.getbuffer()])
    manifest = Manifest(
        spec=spec,
        plan=plan,
        request_sha256=request_sha256,
        index_sha256=hashlib.sha256(data.getbuffer()).hexdigest(),
        index_nbytes=data.getbuffer().nbytes,
        rows=sum(record.rows for record in shards),
        shards=shards,
    )
    write_manifest(place, manifest)
    folder.remove(PLAN)
    folder.clear_claims()
    return manifest


def _check_bytes(
    folder: WritableFolder, commit: ShardCommit, files: Mapping[str, StoredFile]
) -> None:
    file = commit.shard.file
    found = files.get(file)
    if found is None or not _has_bytes(folder, commit, found):
        problem = "absent" if found is None else f"damaged: its sha256 is {folder.sha256(file)}"
        raise ShardError(
            f"{folder}/{file} is {problem}, its commit record says {commit.shard.sha256}; delete "
            f"{folder}/{commit_name(file)} and run the same command again"
        )
