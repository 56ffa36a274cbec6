"""index.parquet: which row of which shard belongs to a question and image role."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.files import file_sha256
from mmcot_data.shards.manifest import MANIFEST, Manifest
from mmcot_data.shards.schema import list_differences

__all__ = ["INDEX", "INDEX_SCHEMA", "PLACES", "read_index"]

INDEX = "index.parquet"
PLACES = ("question_id", "role", "row", "num_patches")
"""The columns that say, with ``number``, where features are."""

INDEX_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "role": pl.String(),
        "shard": pl.String(),
        "row": pl.Int32(),
        "num_patches": pl.Int32(),
        "width": pl.Int32(),
        "height": pl.Int32(),
        "image_sha256": pl.String(),
        "pixel_sha256": pl.String(),
        "status": pl.String(),
        "error": pl.String(),
        "file": pl.String(),
    }
)


def read_index(
    path: Path, manifest: Manifest, columns: Sequence[str] = tuple(INDEX_SCHEMA)
) -> pl.DataFrame:
    """Read index.parquet and check that it is the one that the manifest describes.

    Args:
        path: The file.
        manifest: Of the same feature set.
        columns: The columns to read, of which ``PLACES`` must be some; all of them by default.

    Returns:
        The columns and ``number``: the place of ``shard`` in the manifest, null without features.

    Raises:
        ShardError: If it is absent, another file, lacks columns or ids, names a picture twice, or
            points outside the shards.
    """
    if not path.is_file() or file_sha256(path) != manifest.index_sha256:
        raise ShardError(
            f"{path} is absent or not the one that manifest.json describes; restore it, or run "
            "what made the feature set again to write it anew"
        )
    found = pl.read_parquet_schema(path)
    known = {name: dtype for name, dtype in found.items() if name in INDEX_SCHEMA}
    if differences := list_differences(INDEX_SCHEMA, known):
        raise ShardError(f"{path}: its columns are not those of an index: {'; '.join(differences)}")
    files = [record.file for record in manifest.shards]
    if len(set(files)) < len(files):
        raise ShardError(f"the {MANIFEST} of {path} is damaged: it lists a shard more than once")
    shards = pl.Enum(files)
    number = pl.col("shard").cast(shards, strict=False).to_physical().cast(pl.Int32)
    index = pl.scan_parquet(path).select(*columns, number=number).collect(engine="streaming")
    if index["question_id"].has_nulls() or index["role"].has_nulls():
        raise ShardError(f"{path} is damaged: a row has no question id or no image role")
    twice = _find_twice(index)
    if twice.height:
        raise ShardError(
            f"{path} is damaged: {twice.height} rows share question and image role, the first for "
            f"question {twice['question_id'][0]!r}"
        )
    rows = pl.Series([record.rows for record in manifest.shards], dtype=pl.Int32)
    within = pl.col("row").is_between(0, pl.lit(rows).gather("number"), closed="left") & pl.col(
        "num_patches"
    ).is_between(1, manifest.spec.num_patches)
    lost = index.filter(pl.col("row").is_not_null() & ~within.fill_null(value=False))
    if lost.height:
        raise ShardError(
            f"{path} is damaged: {lost.height} rows point outside the shards of manifest.json or "
            "have an impossible num_patches, "
            f"the first for question {lost['question_id'][0]!r}"
        )
    return index


def _find_twice(index: pl.DataFrame) -> pl.DataFrame:
    """Rows that share question id and role; only those whose hashes are equal are compared."""
    hashes = index.select(pl.struct("question_id", "role").hash()).to_series().to_numpy()
    ordered = np.sort(hashes)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return index.clear()
    suspects = index.filter(np.isin(hashes, twice))
    return suspects.filter(pl.struct("question_id", "role").is_duplicated())
