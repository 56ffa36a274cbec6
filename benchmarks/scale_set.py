"""Feature sets of any number of pictures that take little disk: their features are holes.

Manifest, index and shards are those that an extraction writes, checksums and all; the index has an
incompressible digest for every picture, and every row of features is zeros.

Shape suffixes: N = pictures of a shard, P = patches, D = feature width.
"""

import hashlib
import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from mmcot_data.encoders.table import ENCODERS
from mmcot_data.files import file_sha256
from mmcot_data.shards.columns import PAGE_NBYTES, Frame, ShardColumns
from mmcot_data.shards.containers import SUFFIXES, frame_shard
from mmcot_data.shards.index import INDEX, INDEX_SCHEMA
from mmcot_data.shards.manifest import Manifest, write_manifest
from mmcot_data.shards.planning import default_shard_size, shard_files
from mmcot_data.shards.schema import Container, FeatureSpec, PlanKey, ShardRecord

__all__ = ["STEP", "encoder_spec", "index_part", "write_index", "write_set", "zero_columns"]

_PART = 2**18
STEP = 7_368_787
"""A prime: the ids ``STEP * number % num_images`` are neither sorted nor random."""


def encoder_spec(encoder: str) -> FeatureSpec:
    """The spec of an encoder's features in float16; what does not change sizes is made up."""
    facts = ENCODERS[encoder]
    return FeatureSpec(
        encoder=encoder,
        model_id=facts.model_id,
        revision=None,
        weights_sha256=None,
        random_weights=0,
        layer=facts.layer,
        preprocessing=[],
        precision="fp32",
        precision_error=None,
        backend="torch",
        num_patches=facts.num_patches,
        feature_dim=facts.feature_dim,
        grid=None,
        versions={},
        dtype="float16",
        data_licence="none",
    )


def write_set(folder: Path, spec: FeatureSpec, num_images: int, container: Container) -> Manifest:
    """Write a feature set, one row for each question; the folder must be new."""
    folder.mkdir(parents=True)
    plan = PlanKey(
        format=container,
        num_images=num_images,
        request_sha256="",
        shard_size=default_shard_size(spec, num_images),
    )
    frames: dict[int, tuple[Frame, ShardRecord]] = {}
    records = []
    for number, file in enumerate(shard_files(plan)):
        size = min(plan.shard_size, num_images - number * plan.shard_size)
        if size not in frames:
            frames[size] = _frame(spec, size, container)
        frame, record = frames[size]
        records.append(replace(record, file=file))
        _write_shard(folder / file, frame, record.file_nbytes)
    write_index(folder / INDEX, spec, plan)
    manifest = Manifest(
        spec=spec,
        plan=plan,
        request_sha256="",
        index_sha256=file_sha256(folder / INDEX),
        index_nbytes=(folder / INDEX).stat().st_size,
        rows=num_images,
        shards=tuple(records),
    )
    write_manifest(folder, manifest)
    return manifest


def write_index(path: Path, spec: FeatureSpec, plan: PlanKey) -> None:
    """Write index.parquet part by part: as a whole, 100 million rows would not fit in memory."""

    def parts(*_: object) -> Iterator[pl.DataFrame]:
        for start in range(0, plan.num_images, _PART):
            yield index_part(spec, plan, start, min(start + _PART, plan.num_images))

    register_io_source(parts, schema=INDEX_SCHEMA).sink_parquet(path)


def index_part(spec: FeatureSpec, plan: PlanKey, start: int, stop: int) -> pl.DataFrame:
    """The rows of the index from ``start`` to ``stop``."""
    random = np.random.default_rng(start)
    count = stop - start
    numbers = pl.Series(np.arange(start, stop))
    ids = (numbers * STEP % plan.num_images).cast(pl.String)
    files = pl.Series(shard_files(plan)[start // plan.shard_size : stop // plan.shard_size + 1])
    shards = files.gather(numbers // plan.shard_size - start // plan.shard_size)
    digests = random.bytes(64 * count).hex()
    sides = random.integers(200, 800, (2, count), dtype=np.int32)

    def repeat(value: str | int | None, dtype: pl.DataType) -> pl.Series:
        return pl.Series([value], dtype=dtype).new_from_index(0, count)

    values: dict[str, Any] = {
        "question_id": ids,
        "role": repeat("question", pl.String()),
        "shard": shards,
        "row": numbers % plan.shard_size,
        "num_patches": repeat(spec.num_patches, pl.Int32()),
        "width": sides[0],
        "height": sides[1],
        "image_sha256": [digests[at : at + 64] for at in range(0, 64 * count, 64)],
        "pixel_sha256": [digests[at : at + 64] for at in range(64 * count, 128 * count, 64)],
        "status": repeat("ok", pl.String()),
        "error": repeat(None, pl.String()),
        "file": "images/train/" + ids + "/image.png",
    }
    return pl.DataFrame(values, schema=INDEX_SCHEMA, strict=False)


def zero_columns(spec: FeatureSpec, size: int) -> ShardColumns:
    """The columns of a shard whose features are zeros, which take no memory."""
    zeros_PD = np.zeros(spec.row_shape, spec.dtype)
    return ShardColumns(
        np.broadcast_to(zeros_PD, (size, *spec.row_shape)),
        np.zeros((size, 32), np.uint8),
        np.full(size, spec.num_patches, np.int32),
        np.full(size, zlib.crc32(zeros_PD.data), np.uint32),
    )


def _frame(spec: FeatureSpec, size: int, container: Container) -> tuple[Frame, ShardRecord]:
    """What is around the zeros of a shard, and its record without a name."""
    zeros_PD = np.zeros(spec.row_shape, spec.dtype)
    frame = frame_shard(SUFFIXES[container], zero_columns(spec, size), spec)
    digest = hashlib.sha256(frame.head)
    for _ in range(size):
        digest.update(zeros_PD.data)
    digest.update(frame.tail)
    record = ShardRecord(
        file="",
        rows=size,
        failed=0,
        data_offset=len(frame.head),
        data_nbytes=size * zeros_PD.nbytes,
        crc_offset=frame.crc_offset,
        file_nbytes=len(frame.head) + size * zeros_PD.nbytes + len(frame.tail),
        sha256=digest.hexdigest(),
        header_sha256=hashlib.sha256(frame.head + frame.tail).hexdigest(),
    )
    return frame, record


def _write_shard(path: Path, frame: Frame, nbytes: int) -> None:
    """Write the pages around the features that are not zeros; all others are holes."""
    with path.open("wb") as file:
        file.truncate(nbytes)
        for start, block in ((0, frame.head), (nbytes - len(frame.tail), frame.tail)):
            for page in range(math.ceil(len(block) / PAGE_NBYTES)):
                part = block[page * PAGE_NBYTES : (page + 1) * PAGE_NBYTES]
                if any(part):
                    file.seek(start + page * PAGE_NBYTES)
                    file.write(part)
