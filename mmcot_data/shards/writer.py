"""Write one shard of patch features, complete or not at all.

Shape suffixes: N = images, P = patches, D = feature width.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.shards.columns import ShardColumns
from mmcot_data.shards.containers import SUFFIXES, frame_shard
from mmcot_data.shards.schema import FeatureSpec, ShardRecord, StorageDtype
from mmcot_data.shards.writable import DiskFolder, WritableFolder

__all__ = ["cast_features", "put_shard", "write_shard"]


def cast_features(
    features_NPD: npt.NDArray[np.floating[Any]], dtype: StorageDtype, names: Sequence[str]
) -> npt.NDArray[np.floating[Any]]:
    """Features in the storage dtype.

    Args:
        features_NPD: Features of shape (N, P, D).
        dtype: ``float16`` or ``float32``.
        names: What each picture is called in errors.

    Raises:
        ShardError: If a value is not finite, or is too large for the dtype; names the picture.
    """
    with np.errstate(over="ignore"):
        stored_NPD = features_NPD.astype(dtype, copy=False)
    _check_finite(stored_NPD, names, largest=features_NPD)
    return stored_NPD


def write_shard(
    path: Path,
    features_NPD: npt.NDArray[np.floating[Any]],
    image_sha256_N32: npt.NDArray[np.uint8],
    spec: FeatureSpec,
    *,
    num_patches_N: npt.NDArray[np.int32] | None = None,
    failed: int = 0,
) -> ShardRecord:
    """Write a shard on a disk: see ``put_shard``."""
    record, _ = put_shard(
        DiskFolder(path.parent),
        path.name,
        features_NPD,
        image_sha256_N32,
        spec,
        num_patches_N=num_patches_N,
        failed=failed,
    )
    return record


def put_shard(
    folder: WritableFolder,
    file: str,
    features_NPD: npt.NDArray[np.floating[Any]],
    image_sha256_N32: npt.NDArray[np.uint8],
    spec: FeatureSpec,
    *,
    num_patches_N: npt.NDArray[np.int32] | None = None,
    failed: int = 0,
) -> tuple[ShardRecord, str | None]:
    """Write a shard, atomically; the suffix of its name decides the container.

    Args:
        folder: Where to.
        file: Its name, ending in ``.h5`` or ``.arrow``.
        features_NPD: Features in the spec's dtype, shape (N, P, D) with N of at least 1.
        image_sha256_N32: Sha256 of each picture's file, as (N, 32) bytes; zeros if unknown.
        spec: What made the features.
        num_patches_N: Valid patches of each image; all of them if None.
        failed: Pictures of the shard's part of the plan without a row, for the record.

    Returns:
        The shard's record, and what object storage calls its bytes; its commit record is the
        caller's to write. The checksums are of what was given to the system to write, not of what
        the disk gives back.

    Raises:
        ShardError: If the arrays do not fit the spec, or a value is not finite.
        DiskFullError: If there is no room.
        OSError: If writing fails for another reason.

        After an error there is no such file, or the one that was there before.
    """
    suffix = PurePath(file).suffix
    if suffix not in SUFFIXES.values():
        raise ShardError(f"{file}: expected a name that ends in {' or '.join(SUFFIXES.values())}")
    if num_patches_N is None:
        num_patches_N = np.full(len(features_NPD), spec.num_patches, np.int32)
    columns = ShardColumns.of(features_NPD, image_sha256_N32, num_patches_N, spec, file)
    _check_finite(features_NPD, [row.tobytes().hex() for row in image_sha256_N32])
    frame = frame_shard(suffix, columns, spec)
    features = columns.features_NPD.data.cast("B")
    parts = (frame.head, features, frame.tail)
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    etag = folder.write(file, parts)
    record = ShardRecord(
        file=file,
        rows=len(features_NPD),
        failed=failed,
        data_offset=len(frame.head),
        data_nbytes=features.nbytes,
        crc_offset=frame.crc_offset,
        file_nbytes=len(frame.head) + features.nbytes + len(frame.tail),
        sha256=digest.hexdigest(),
        header_sha256=hashlib.sha256(frame.head + frame.tail).hexdigest(),
    )
    return record, etag


def _check_finite(
    stored_NPD: npt.NDArray[np.floating[Any]],
    names: Sequence[str],
    largest: npt.NDArray[np.floating[Any]] | None = None,
) -> None:
    for row, (name, stored_PD) in enumerate(zip(names, stored_NPD, strict=True)):
        if np.isfinite(stored_PD).all():
            continue
        if largest is not None and np.isfinite(largest[row]).all():
            problem = (
                f"reach {np.abs(largest[row]).max():.6g}, more than {stored_PD.dtype} holds; store "
                "them with --dtype float32"
            )
        else:
            problem = "are not finite: the model or its precision does not suit this picture"
        raise ShardError(f"the features of picture {name} {problem}")
