"""index.parquet: which row of which shard belongs to a question and image role."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.files import file_sha256
from mmcot_data.shards.manifest import Manifest
from mmcot_data.shards.schema import list_differences

__all__ = ["INDEX", "INDEX_SCHEMA", "PLACES", "read_index"]

INDEX = "index.parquet"
PLACES = ("question_id", "role", "shard", "row", "num_patches")
"""The columns that say where features are."""

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
        ShardError: If it is absent, another file, lacks columns, names a picture twice, or points
            outside the shards.
    """
    if not path.is_file() or file_sha256(path) != manifest.index_sha256:
        raise ShardError(
            f"{path} is absent or not the one that manifest.json describes; restore it, or run "
            "what made the feature set again to write it anew"
        )
    shards = pl.DataFrame(
        {
            "shard": [record.file for record in manifest.shards],
            "number": range(len(manifest.shards)),
            "_rows": [record.rows for record in manifest.shards],
        },
        schema={"shard": pl.String, "number": pl.Int32, "_rows": pl.Int32},
    )
    found = pl.read_parquet_schema(path)
    known = {name: dtype for name, dtype in found.items() if name in INDEX_SCHEMA}
    if differences := list_differences(INDEX_SCHEMA, known):
        raise ShardError(f"{path}: its columns are not those of an index: {'; '.join(differences)}")
    index = pl.read_parquet(path, columns=list(columns))
    twice = index.filter(pl.struct("question_id", "role").is_duplicated())
    if twice.height:
        raise ShardError(
            f"{path} is damaged: {twice.height} rows share question and image role, the first for "
            f"question {twice['question_id'][0]!r}"
        )
    index = index.join(shards, on="shard", how="left", maintain_order="left")
    within = pl.col("row").is_between(0, pl.col("_rows"), closed="left") & pl.col(
        "num_patches"
    ).is_between(1, manifest.spec.num_patches)
    lost = index.filter(pl.col("row").is_not_null() & ~within.fill_null(value=False))
    if lost.height:
        raise ShardError(
            f"{path} is damaged: {lost.height} rows point outside the shards of manifest.json or "
            "have an impossible num_patches, "
            f"the first for question {lost['question_id'][0]!r}"
        )
    return index.drop("_rows")
