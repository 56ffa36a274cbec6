"""HDF5 to Arrow and back: the same feature set in the other container."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.shards.containers import SUFFIXES, read_columns
from mmcot_data.shards.feature_set_writer import (
    FeatureSource,
    Progress,
    ShardPart,
    ShardRows,
    write_feature_set,
)
from mmcot_data.shards.folder_content import read_folder
from mmcot_data.shards.location import LocalFolder
from mmcot_data.shards.manifest import FailedImage, Manifest
from mmcot_data.shards.planning import shard_files
from mmcot_data.shards.schema import Container
from mmcot_data.shards.store import ShardStore

__all__ = ["convert_feature_set"]


def convert_feature_set(
    store: ShardStore, folder: Path, container: Container, on_progress: Progress | None = None
) -> Manifest:
    """Write a feature set once more, in a container that may be another one.

    The files are those that the extraction, or the import, would have written with ``--format
    container``, byte for byte. Of a feature set that is shared without its commit records, all but
    what computed each shard is found in index.parquet.

    Args:
        store: The opened feature set; its rows are compared with their checksums if it checks them.
        folder: Folder of the new one.
        container: ``hdf5`` or ``arrow``.
        on_progress: Called after each shard.

    Raises:
        ShardError: If ``folder`` is that of ``store``, the index and the manifest contradict each
            other, a row is damaged; and as for ``write_feature_set``.
    """
    location = store.location
    if isinstance(location, LocalFolder) and folder.exists() and folder.samefile(location.folder):
        raise ShardError(f"{folder} is the feature set itself; choose another --out")
    manifest = store.manifest
    plan = replace(manifest.plan, format=container)
    numbers = {record.file: number for number, record in enumerate(manifest.shards)}
    files = shard_files(manifest.plan)

    def read(number: int) -> ShardRows:
        place = numbers[files[number]]
        start, count = int(store.mapped.starts[place]), manifest.shards[place].rows
        store.mapped.prepare(np.arange(start, start + count))
        columns = read_columns(store.mapped.path(place))
        return ShardRows(
            store.mapped.rows[start : start + count],
            columns.image_sha256_N32,
            columns.num_patches_N,
        )

    index = store.read_index().drop("number")
    found = _parts_of_commits(store, files) or _parts_of_index(store, index, files)
    parts = zip(shard_files(plan), found, strict=True)
    suffix = SUFFIXES[manifest.plan.format]
    source = FeatureSource(
        spec=manifest.spec,
        plan=plan,
        request_sha256=manifest.request_sha256,
        shards=tuple(replace(part, file=file) for file, part in parts),
        read=read,
        index=index.with_columns(pl.col("shard").str.strip_suffix(suffix) + SUFFIXES[container]),
    )
    return write_feature_set(folder, source, on_progress)


def _parts_of_commits(store: ShardStore, files: Sequence[str]) -> list[ShardPart] | None:
    """The plan's shards from their commit records; None if these are not all there."""
    if not isinstance(store.location, LocalFolder):
        return None
    commits = read_folder(store.location.folder).commits
    manifest = store.manifest
    records = {record.file: record for record in manifest.shards}
    parts = []
    for file in files:
        commit = commits.get(file)
        if (
            commit is None
            or (commit.spec, commit.plan) != (manifest.spec, manifest.plan)
            or (commit.shard.rows and commit.shard != records.get(file))
        ):
            return None
        part = ShardPart(
            file=file,
            rows=commit.shard.rows,
            pixel_sha256=commit.pixel_sha256,
            failed=commit.failed,
            made_by=commit.made_by,
        )
        parts.append(part)
    return parts


def _parts_of_index(
    store: ShardStore, index: pl.DataFrame, files: Sequence[str]
) -> list[ShardPart]:
    """The plan's shards, also those without rows, from the index."""
    records = {record.file: record for record in store.manifest.shards}
    failed = _failed_images(index, store.manifest.plan.shard_size)
    kept = index.filter(pl.col("row").is_not_null())
    places = kept.select("shard", "row").iter_rows()
    pixels = dict(zip(places, kept["pixel_sha256"].fill_null(""), strict=True))
    parts = []
    for number, file in enumerate(files):
        rows = records[file].rows if file in records else 0
        part = ShardPart(
            file=file,
            rows=rows,
            pixel_sha256=tuple(pixels.get((file, row), "") for row in range(rows)),
            failed=tuple(failed.get(number, ())),
        )
        parts.append(part)
    fits = all(
        len(part.failed) == records[part.file].failed if part.rows else part.failed
        for part in parts
    )
    if not fits or records.keys() - set(files) or failed.keys() - set(range(len(files))):
        raise ShardError(
            f"{store.location}: index.parquet and the shards and plan of manifest.json contradict "
            "each other; restore the folder, or run what made the feature set again. Where "
            "pictures were repaired, the commit records (*.json beside the shards) are needed, too"
        )
    return parts


def _failed_images(index: pl.DataFrame, shard_size: int) -> dict[int, list[FailedImage]]:
    """Pictures without a row by the number of their shard; the plan's order is that of the index.

    Equal pictures count once, and each without a size, whose header could not be read, for itself.
    """
    failed: dict[int, list[FailedImage]] = {}
    if index["row"].null_count() == 0:
        return failed
    seen: set[object] = set()
    columns = ("question_id", "role", "image_sha256", "width", "status", "error", "row")
    for question_id, role, digest, width, status, error, row in index.select(columns).iter_rows():
        key = (question_id, role) if digest is None or width is None else digest
        if key in seen:
            continue
        number, position = divmod(len(seen), shard_size)
        seen.add(key)
        if row is None:
            image = FailedImage(
                position=position,
                question_id=question_id,
                role=role,
                image_sha256=digest,
                reason=status,
                error=error,
            )
            failed.setdefault(number, []).append(image)
    return failed
