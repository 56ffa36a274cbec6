"""manifest.json of a feature set, and the commit record beside each shard."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmcot_data.errors import ShardError
from mmcot_data.sealed_json import parse_sealed_json, write_sealed_json
from mmcot_data.shards.schema import (
    FORMAT_VERSION,
    FeatureSpec,
    PlanKey,
    ShardRecord,
    parse_fields,
)

__all__ = [
    "MANIFEST",
    "FailedImage",
    "Manifest",
    "ShardCommit",
    "commit_path",
    "parse_manifest",
    "read_commit",
    "read_manifest",
    "write_commit",
    "write_manifest",
]

MANIFEST = "manifest.json"


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
    """Hex digest of each row's decoded picture; empty strings where it is not known."""
    failed: tuple[FailedImage, ...]


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


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, atomically; it is written last and makes the folder finished."""
    write_sealed_json(folder / MANIFEST, {"format_version": FORMAT_VERSION, **asdict(manifest)})


def commit_path(shard: Path) -> Path:
    """Where the commit record of a shard stands."""
    return shard.with_name(f"{shard.name}.json")


def read_commit(path: Path) -> ShardCommit:
    """Read a commit record.

    Raises:
        ShardError: If it is damaged or of another format version.
    """
    value = _parse_object(path.read_bytes(), ShardCommit, str(path))
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
    write_sealed_json(path, {"format_version": FORMAT_VERSION, **asdict(commit)})


def _parse_object(data: bytes, cls: type[Any], where: str) -> dict[str, Any]:
    value = parse_sealed_json(data, where)
    version = value.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ShardError(
            f"{where}: format version is {version!r}, this version of mmcot reads {FORMAT_VERSION}"
        )
    return parse_fields(cls, value, where)
