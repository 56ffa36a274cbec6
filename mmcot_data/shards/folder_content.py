"""What the records of a feature set's folder say, finished or not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

from mmcot_data.shards.containers import SUFFIXES
from mmcot_data.shards.manifest import (
    MANIFEST,
    PLAN,
    Manifest,
    PlanRecord,
    ShardCommit,
    commit_name,
    parse_commit,
    parse_manifest,
    parse_plan,
)
from mmcot_data.shards.schema import FeatureSpec, PlanKey
from mmcot_data.shards.writable import Place, StoredFile, WritableFolder, find_writable

__all__ = ["FolderContent", "read_folder", "read_shards"]

_Record = TypeVar("_Record")

_NUM_READ = 256
"""Commit records that are in memory as they stand in their files."""


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
    files: Mapping[str, StoredFile]
    """All that is there."""

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


def read_folder(place: Place) -> FolderContent:
    """Read the manifest, the plan and all commit records of a folder; it may be absent.

    Raises:
        ShardError: If a record is damaged or of another format version.
    """
    folder = find_writable(place)
    files = folder.files()
    commits = _read_commits(folder, files)
    found = folder.read([MANIFEST, PLAN])

    def parse(name: str, read: Callable[[bytes, str], _Record]) -> _Record | None:
        return read(found[name], f"{folder}/{name}") if name in found else None

    plan = parse(PLAN, parse_plan)
    if plan is not None and not commits and folder.find_worker() is None:
        plan = None
    manifest = parse(MANIFEST, parse_manifest)
    return FolderContent(manifest=manifest, plan=plan, commits=commits, files=files)


def read_shards(place: Place, shards: Sequence[str]) -> FolderContent:
    """What ``read_folder`` says of some shards alone.

    Raises:
        ShardError: If a commit record is damaged or of another format version.
    """
    folder = find_writable(place)
    files = folder.files([*shards, *map(commit_name, shards)])
    commits = _read_commits(folder, files)
    return FolderContent(manifest=None, plan=None, commits=commits, files=files)


def _read_commits(folder: WritableFolder, files: Iterable[str]) -> dict[str, ShardCommit]:
    names = [commit_name(shard) for shard in _commits(files)]
    found = {}
    for start in range(0, len(names), _NUM_READ):
        for name, data in folder.read(names[start : start + _NUM_READ]).items():
            found[PurePath(name).stem] = parse_commit(data, f"{folder}/{name}")
    return found


def _commits(files: Iterable[str]) -> list[str]:
    """The shards whose commit records are among some files."""
    records = (PurePath(name) for name in sorted(files) if "-of-" in name)
    return [
        path.stem
        for path in records
        if path.suffix == ".json" and PurePath(path.stem).suffix in SUFFIXES.values()
    ]
