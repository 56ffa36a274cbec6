"""What a feature set holds, from its manifest and index alone; and which ones a folder holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.shards.manifest import MANIFEST, read_commit, read_manifest
from mmcot_data.shards.places import sort_roles
from mmcot_data.shards.schema import FORMAT_VERSION, FeatureSpec, PlanKey
from mmcot_data.shards.store import ShardStore

__all__ = [
    "FeatureSetSummary",
    "ListedFeatureSet",
    "find_feature_sets",
    "list_feature_set",
    "summarize_features",
]

_COMMITS = "*-of-*.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureSetSummary:
    """What a finished feature set holds."""

    path: str
    """The folder or URL."""
    format_version: int
    spec: FeatureSpec
    plan: PlanKey
    num_questions: int
    """Questions in the index: those that name a picture."""
    num_questions_with_features: int
    num_pictures: int
    """Rows of the index: one for each question and image role."""
    roles: Mapping[str, int]
    """Pictures with features by image role."""
    failed: Mapping[str, int]
    """Pictures without features by reason."""
    num_rows: int
    """Rows of features: distinct pictures."""
    num_shards: int
    nbytes: int
    """Of the shards together."""


def summarize_features(store: ShardStore, index: pl.DataFrame) -> FeatureSetSummary:
    """Count what a feature set holds; no shard is read.

    Args:
        store: The opened feature set.
        index: Its index.
    """
    manifest = store.manifest
    ok = index.filter(pl.col("row").is_not_null())
    failed = index.filter(pl.col("row").is_null())
    roles = _count(ok["role"])
    return FeatureSetSummary(
        path=str(store.location),
        format_version=FORMAT_VERSION,
        spec=manifest.spec,
        plan=manifest.plan,
        num_questions=index["question_id"].n_unique(),
        num_questions_with_features=ok["question_id"].n_unique(),
        num_pictures=index.height,
        roles={role: roles[role] for role in sort_roles(list(roles))},
        failed=_count(failed["status"]),
        num_rows=manifest.rows,
        num_shards=len(manifest.shards),
        nbytes=sum(record.file_nbytes for record in manifest.shards),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedFeatureSet:
    """One of the feature sets of an artifact root, finished or not."""

    name: str
    """Of its folder."""
    spec: FeatureSpec | None
    """None where nothing readable says it."""
    num_rows: int
    """Of the shards that are complete."""
    nbytes: int
    """Of the same shards."""
    state: str
    """``finished``, ``unfinished`` or ``damaged``."""


def find_feature_sets(root: Path) -> list[Path]:
    """The feature sets of an artifact root; none where the folder is one itself, or is none."""
    if _is_feature_set(root) or not root.is_dir():
        return []
    return [folder for folder in sorted(root.iterdir()) if _is_feature_set(folder)]


def list_feature_set(folder: Path) -> ListedFeatureSet:
    """What there is in the folder of a feature set."""
    try:
        if (folder / MANIFEST).is_file():
            manifest = read_manifest(folder)
            state, spec, records = "finished", manifest.spec, list(manifest.shards)
        else:
            commits = [read_commit(path) for path in sorted(folder.glob(_COMMITS))]
            state, spec = "unfinished", commits[0].spec
            records = [commit.shard for commit in commits]
    except ShardError:
        return ListedFeatureSet(name=folder.name, spec=None, num_rows=0, nbytes=0, state="damaged")
    return ListedFeatureSet(
        name=folder.name,
        spec=spec,
        num_rows=sum(record.rows for record in records),
        nbytes=sum(record.file_nbytes for record in records),
        state=state,
    )


def _is_feature_set(folder: Path) -> bool:
    return (folder / MANIFEST).is_file() or any(folder.glob(_COMMITS))


def _count(column: pl.Series) -> dict[str, int]:
    counts = column.value_counts(sort=True)
    return dict(counts.iter_rows())
