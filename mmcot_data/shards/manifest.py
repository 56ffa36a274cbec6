"""manifest.json of a feature set, and the commit record beside each shard."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmcot_data.errors import ShardError
from mmcot_data.files import write_json
from mmcot_data.shards.schema import (
    FORMAT_VERSION,
    FeatureSpec,
    PlanKey,
    ShardRecord,
    parse_fields,
)

__all__ = [
    "FailedImage",
    "Manifest",
    "ShardCommit",
    "commit_path",
    "read_commit",
    "read_manifest",
    "write_commit",
    "write_manifest",
]

_MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A finished feature set: what it holds, where, and what made it."""

    spec: FeatureSpec
    plan: PlanKey
    request_sha256: str
    """Digest of the (question id, role, image) rows that were asked for."""
    index_sha256: str
    """Hex digest of index.parquet."""
    rows: int
    shards: tuple[ShardRecord, ...]
    """The shards that have rows, in the plan's order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedImage:
    """A picture that has no row because it could not be decoded."""

    image_sha256: str
    reason: str
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardCommit:
    """What stands beside a shard, in ``<shard>.json``: with it the shard is complete."""

    spec: FeatureSpec
    plan: PlanKey
    shard: ShardRecord
    pixel_sha256: tuple[str, ...]
    """Hex digest of each row's decoded picture."""
    failed: tuple[FailedImage, ...]


def read_manifest(folder: Path) -> Manifest:
    """Read manifest.json of a feature set.

    Raises:
        ShardError: If there is none, which means that the folder is unfinished; or if it is
            damaged or of another format version.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        state = "is unfinished: it has no manifest.json" if folder.is_dir() else "does not exist"
        raise ShardError(
            f"the feature set {folder} {state}; run `mmcot-data extract DATA --encoder NAME --out "
            f"{folder.parent}` (the same command continues an interrupted one)"
        )
    value = _read_object(path, Manifest)
    return Manifest(
        spec=FeatureSpec.from_json(value["spec"], f"{path}: spec"),
        plan=PlanKey.from_json(value["plan"], f"{path}: plan"),
        shards=tuple(ShardRecord.from_json(v, f"{path}: shards") for v in value["shards"]),
        **{key: value[key] for key in ("request_sha256", "index_sha256", "rows")},
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, atomically; it is written last and makes the folder finished."""
    write_json(folder / _MANIFEST, {"format_version": FORMAT_VERSION, **asdict(manifest)})


def commit_path(shard: Path) -> Path:
    """Where the commit record of a shard stands."""
    return shard.with_name(f"{shard.name}.json")


def read_commit(path: Path) -> ShardCommit:
    """Read a commit record.

    Raises:
        ShardError: If it is damaged or of another format version.
    """
    value = _read_object(path, ShardCommit)
    failed = (parse_fields(FailedImage, v, f"{path}: failed") for v in value["failed"])
    return ShardCommit(
        spec=FeatureSpec.from_json(value["spec"], f"{path}: spec"),
        plan=PlanKey.from_json(value["plan"], f"{path}: plan"),
        shard=ShardRecord.from_json(value["shard"], f"{path}: shard"),
        pixel_sha256=tuple(value["pixel_sha256"]),
        failed=tuple(FailedImage(**fields) for fields in failed),
    )


def write_commit(folder: Path, commit: ShardCommit) -> None:
    """Write a shard's commit record, atomically; the shard itself must be in place already."""
    path = commit_path(folder / commit.shard.file)
    write_json(path, {"format_version": FORMAT_VERSION, **asdict(commit)})


def _read_object(path: Path, cls: type[Any]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ShardError(f"{path} is damaged: not JSON ({error})") from error
    version = value.pop("format_version", None) if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format version is {version}, this version of mmcot reads {FORMAT_VERSION}"
        )
    return parse_fields(cls, value, str(path))
