"""What the folder of a feature set holds already, and whether it fits the request."""

from pathlib import Path

from mmcot_data.errors import ExtractionError, SpecMismatchError
from mmcot_data.shards.manifest import ShardCommit, commit_path, read_commit, read_manifest
from mmcot_data.shards.schema import FeatureSpec, PlanKey

__all__ = ["check_folder", "read_complete", "remove_temporary"]


def check_folder(folder: Path, spec: FeatureSpec, key: PlanKey) -> None:
    """Refuse a folder whose manifest or commit records belong to another request.

    Raises:
        SpecMismatchError: If its features were made in another way; lists what differs.
        ExtractionError: If it was made for other pictures or in other sizes; lists what differs.
        ShardError: If a record is damaged or of another format version.
    """
    advice = f"Choose another --out, or delete {folder} to extract anew."
    for found_spec, found_key in _found(folder):
        if differences := spec.differences(found_spec):
            raise SpecMismatchError(
                f"{folder} holds features that were made in another way:\n  "
                + "\n  ".join(differences)
                + f"\n{advice}"
            )
        if differences := key.differences(found_key):
            raise ExtractionError(
                f"{folder} was made for other pictures or in other sizes:\n  "
                + "\n  ".join(differences)
                + f"\nAsk for what it was made for (--split, --format, --shard-size, --batch-size)"
                f" to continue it. {advice}"
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


def remove_temporary(folder: Path) -> None:
    """Remove what a killed run left half-written; no other run may be writing."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _found(folder: Path) -> list[tuple[FeatureSpec, PlanKey]]:
    found = []
    if (folder / "manifest.json").is_file():
        manifest = read_manifest(folder)
        found.append((manifest.spec, manifest.plan))
    commits = [read_commit(path) for path in sorted(folder.glob("*-of-*.json"))]
    return found + [(commit.spec, commit.plan) for commit in commits]
