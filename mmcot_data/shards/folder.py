"""A feature set's folder from a writer's side: what is complete, what fits, how it is finished."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import polars as pl

from mmcot_data.errors import FolderLockedError, ShardError, SpecMismatchError
from mmcot_data.files import file_sha256, write_parquet
from mmcot_data.shards.containers import SUFFIXES
from mmcot_data.shards.index import INDEX
from mmcot_data.shards.lock import (
    clear_claims,
    find_worker,
    lock_folder,
    remove_half_written,
)
from mmcot_data.shards.manifest import (
    MANIFEST,
    PLAN,
    Manifest,
    PlanRecord,
    ShardCommit,
    commit_path,
    read_commit,
    read_manifest,
    read_plan,
    write_manifest,
    write_plan,
)
from mmcot_data.shards.schema import FeatureSpec, PlanKey

__all__ = [
    "FolderContent",
    "check_folder",
    "finish_folder",
    "is_complete",
    "read_complete",
    "read_folder",
    "refuse_artifact_root",
    "start_writing",
    "write_folder",
]


_Record = TypeVar("_Record")


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderContent:
    """What the records of a feature set's folder say."""

    manifest: Manifest | None
    """None if it is unfinished."""
    plan: PlanRecord | None
    """What it is being made for; None if it is finished, or if nothing of it has been made and
    nobody makes it."""
    commits: Mapping[str, ShardCommit]
    """By the name of the shard."""

    def requests(self) -> list[tuple[FeatureSpec, PlanKey]]:
        """What the folder was made for, as each record has it."""
        records = (self.manifest, self.plan, *self.commits.values())
        return [(record.spec, record.plan) for record in records if record is not None]

    def failed(self) -> dict[tuple[str, str], str | None]:
        """The planned pictures without a row: their digest by (question id, image role)."""
        unread = () if self.plan is None else self.plan.unread
        failed = (failure for commit in self.commits.values() for failure in commit.failed)
        found: dict[tuple[str, str], str | None] = dict.fromkeys(unread)
        return found | {(f.question_id, f.role): f.image_sha256 for f in failed}


@contextmanager
def write_folder(folder: Path, spec: FeatureSpec, key: PlanKey) -> Iterator[FolderContent]:
    """Write into a feature set, alone: its folder is locked, fits, and holds nothing half-written.

    Raises:
        FolderLockedError: If another process writes into it, or makes shards of it.
        SpecMismatchError: As ``check_folder``.
        ShardError: As ``check_folder``; or if it is an artifact root.
    """
    refuse_artifact_root(folder)
    with lock_folder(folder):
        if (worker := find_worker(folder)) is not None:
            raise FolderLockedError(
                f"{folder} is being written by {worker}; wait until it has finished, or choose "
                "another folder"
            )
        content = read_folder(folder)
        check_folder(folder, content, spec, key)
        remove_half_written(folder)
        yield content


def read_folder(folder: Path) -> FolderContent:
    """Read the manifest, the plan and all commit records of a folder; it may be absent.

    Raises:
        ShardError: If a record is damaged or of another format version.
    """
    paths = [
        path
        for path in sorted(folder.glob("*-of-*.json"))
        if Path(path.stem).suffix in SUFFIXES.values()
    ]
    commits = {path.stem: _read_if_there(path, read_commit) for path in paths}
    plan = _read_if_there(folder / PLAN, lambda _: read_plan(folder))
    if plan is not None and not any(commits.values()) and find_worker(folder) is None:
        plan = None
    return FolderContent(
        manifest=_read_if_there(folder / MANIFEST, lambda _: read_manifest(folder)),
        plan=plan,
        commits={file: commit for file, commit in commits.items() if commit is not None},
    )


def _read_if_there(path: Path, read: Callable[[Path], _Record]) -> _Record | None:
    """None if there is no such file; another process may delete it at this moment."""
    if not path.is_file():
        return None
    try:
        return read(path)
    except FileNotFoundError:
        return None


def refuse_artifact_root(folder: Path) -> None:
    """Keep the folder of a feature set apart from the one that holds feature sets.

    Raises:
        ShardError: If the folder is an artifact root.
    """
    if (folder / "questions.parquet").exists() or any(folder.glob(f"*/{MANIFEST}")):
        raise ShardError(
            f"{folder} is an artifact root, expected the folder of a feature set: give one in it, "
            f"as {folder / 'NAME'}"
        )


def check_folder(folder: Path, content: FolderContent, spec: FeatureSpec, key: PlanKey) -> None:
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
    folder: Path, spec: FeatureSpec, key: PlanKey, unread: Iterable[tuple[str, str]] = ()
) -> None:
    """Note what an unfinished folder is being made for; a finished one becomes unfinished.

    Whoever wants to write something else into it is refused from now on, as long as there is a
    worker or a complete shard.
    """
    write_plan(folder, PlanRecord(spec=spec, plan=key, unread=tuple(unread)))
    (folder / MANIFEST).unlink(missing_ok=True)


def read_complete(folder: Path, file: str, spec: FeatureSpec, key: PlanKey) -> ShardCommit | None:
    """The commit record of a shard, if the shard is complete and belongs to the request.

    Raises:
        ShardError: If the record is damaged.
    """
    path = commit_path(folder / file)
    if not path.is_file():
        return None
    commit = read_commit(path)
    return commit if is_complete(folder, commit, spec, key) else None


def is_complete(folder: Path, commit: ShardCommit, spec: FeatureSpec, key: PlanKey) -> bool:
    """Whether a commit record belongs to the request and its shard is there, in its size."""
    path = folder / commit.shard.file
    size = path.stat().st_size if path.is_file() else 0
    return (commit.spec, commit.plan, commit.shard.file_nbytes) == (spec, key, size)


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
            clear_claims(folder)
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
    (folder / PLAN).unlink(missing_ok=True)
    clear_claims(folder)
    return manifest
