"""manifest.json of a feature set, and the commit record beside each shard."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmcot_data.errors import ShardError
from mmcot_data.sealed_json import parse_sealed_json, seal_json
from mmcot_data.shards.schema import (
    FORMAT_VERSION,
    FeatureSpec,
    PlanKey,
    ShardRecord,
    parse_fields,
)
from mmcot_data.shards.writable import Place, find_writable

__all__ = [
    "MANIFEST",
    "PLAN",
    "FailedImage",
    "Manifest",
    "PlanRecord",
    "ShardCommit",
    "commit_name",
    "commit_path",
    "parse_commit",
    "parse_manifest",
    "parse_plan",
    "read_commit",
    "read_manifest",
    "write_commit",
    "write_manifest",
    "write_plan",
]

MANIFEST = "manifest.json"
PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A finished feature set: what it holds, where, and what made it."""

    spec: FeatureSpec
    plan: PlanKey
    request_sha256: str
    """Digest of the (question id, role, image) rows that were asked for."""
    index_sha256: str
    """Hex digest of index.parquet."""
    index_nbytes: int
    rows: int
    shards: tuple[ShardRecord, ...]
    """The shards that have rows, in the plan's order."""

    @property
    def sha256(self) -> str:
        """Hex digest of all of it, and through the digests in it of all that the set holds."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRecord:
    """plan.json: what an unfinished feature set is being made for."""

    spec: FeatureSpec
    plan: PlanKey
    unread: tuple[tuple[str, str], ...]
    """(question id, image role) of the pictures whose bytes could not be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedImage:
    """A picture of a shard's part of the plan that has no row."""

    position: int
    """In the shard's part of the plan."""
    question_id: str
    """Of the first question that has the picture."""
    role: str
    image_sha256: str | None
    """None if its bytes could not be read."""
    reason: str
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardCommit:
    """What stands beside a shard, in ``<shard>.json``: with it the shard is complete."""

    spec: FeatureSpec
    plan: PlanKey
    shard: ShardRecord
    image_sha256: tuple[str, ...]
    """Hex digest of each row's picture, in order; empty strings where it is not known."""
    pixel_sha256: tuple[str, ...]
    """Hex digest of each row's decoded picture; empty strings where it is not known."""
    failed: tuple[FailedImage, ...]
    """The pictures of the shard's part of the plan that have no row, in order."""
    made_by: Mapping[str, Any] = field(compare=False)
    """What computed the shard: version, batch size, device, threads. It may change the rounding of
    features, and nothing else. Empty where it is not known. In object storage ``etag`` is what the
    store calls the shard's bytes."""

    @property
    def etag(self) -> str | None:
        """What the store calls the shard's bytes; None if it was written on a disk."""
        etag: str | None = self.made_by.get("etag")
        return etag

    @property
    def planned(self) -> tuple[str, ...]:
        """Hex digest of each picture of the shard's part of the plan, "" where it had none."""
        images = list(self.image_sha256)
        for failure in self.failed:
            images.insert(failure.position, failure.image_sha256 or "")
        return tuple(images)


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json of a feature set.

    Raises:
        ShardError: If there is none, says what the folder is instead; or if it is damaged or of
            another format version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ShardError(_explain_absence(folder))
    return parse_manifest(path.read_bytes(), str(path))


def _explain_absence(folder: Path) -> str:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        return f"{folder} {found}; expected the folder of a feature set, such as shards/detr"
    if sets := sorted(str(path.parent) for path in folder.glob(f"*/{MANIFEST}")):
        return f"{folder} is an artifact root, expected one of its feature sets: {', '.join(sets)}"
    if any(folder.glob("*-of-*")):
        return (
            f"the feature set {folder} is unfinished: it has no {MANIFEST}; run what makes it "
            "again, the same command continues"
        )
    return (
        f"{folder} is no feature set: it has no {MANIFEST}; `mmcot-data extract DATA --encoder "
        "NAME --out ROOT` makes one in ROOT, and `mmcot-data import` takes other programs' features"
    )


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest from the bytes of manifest.json; ``where`` names it in errors.

    Raises:
        ShardError: If it is damaged or of another format version.
    """
    value = _parse_object(data, Manifest, where)
    names = ("request_sha256", "index_sha256", "index_nbytes", "rows")
    return Manifest(
        spec=FeatureSpec.from_json(value["spec"], f"{where}: spec"),
        plan=PlanKey.from_json(value["plan"], f"{where}: plan"),
        shards=tuple(ShardRecord.from_json(v, f"{where}: shards") for v in value["shards"]),
        **{name: value[name] for name in names},
    )


def write_manifest(folder: Place, manifest: Manifest) -> None:
    """Write manifest.json, atomically; it is written last and makes the folder finished."""
    _write_record(folder, MANIFEST, manifest)


def parse_plan(data: bytes, where: str) -> PlanRecord:
    """What an unfinished feature set is made for, from the bytes of plan.json.

    Raises:
        ShardError: If it is damaged or of another format version.
    """
    value = _parse_object(data, PlanRecord, where)
    return PlanRecord(
        spec=FeatureSpec.from_json(value["spec"], f"{where}: spec"),
        plan=PlanKey.from_json(value["plan"], f"{where}: plan"),
        unread=tuple((question_id, role) for question_id, role in value["unread"]),
    )


def write_plan(folder: Place, record: PlanRecord) -> None:
    """Write plan.json, atomically."""
    _write_record(folder, PLAN, record)


def commit_path(shard: Path) -> Path:
    """Where the commit record of a shard stands."""
    return shard.with_name(commit_name(shard.name))


def commit_name(file: str) -> str:
    """What the commit record of a shard is called."""
    return f"{file}.json"


def read_commit(path: Path) -> ShardCommit:
    """Read a commit record.

    Raises:
        ShardError: If it is damaged or of another format version.
    """
    return parse_commit(path.read_bytes(), str(path))


def parse_commit(data: bytes, where: str) -> ShardCommit:
    """The commit record from the bytes of its file; ``where`` names it in errors.

    Raises:
        ShardError: If it is damaged or of another format version.
    """
    value = _parse_object(data, ShardCommit, where)
    failed = (parse_fields(FailedImage, v, f"{where}: failed") for v in value["failed"])
    return ShardCommit(
        spec=FeatureSpec.from_json(value["spec"], f"{where}: spec"),
        plan=PlanKey.from_json(value["plan"], f"{where}: plan"),
        shard=ShardRecord.from_json(value["shard"], f"{where}: shard"),
        image_sha256=tuple(value["image_sha256"]),
        pixel_sha256=tuple(value["pixel_sha256"]),
        failed=tuple(FailedImage(**fields) for fields in failed),
        made_by=value["made_by"],
    )


def write_commit(folder: Place, commit: ShardCommit) -> None:
    """Write a shard's commit record, atomically; the shard itself must be in place already."""
    _write_record(folder, commit_name(commit.shard.file), commit)


def _write_record(folder: Place, name: str, record: Manifest | PlanRecord | ShardCommit) -> None:
    data = seal_json({"format_version": FORMAT_VERSION, **asdict(record)})
    find_writable(folder).write(name, [data])


def _parse_object(data: bytes, cls: type[Any], where: str) -> dict[str, Any]:
    value = parse_sealed_json(data, where)
    version = value.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{where}: format version is {version!r}, this version of mmcot reads {FORMAT_VERSION}"
        )
    return parse_fields(cls, value, where)
