"""Write one shard of patch features, complete or not at all.

Shape suffixes: N = images, P = patches, D = feature width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.files import file_sha256, replace_file
from mmcot_data.shards.arrow import write_arrow
from mmcot_data.shards.hdf5 import write_hdf5
from mmcot_data.shards.schema import Container, FeatureSpec, ShardRecord, StorageDtype

__all__ = ["SUFFIXES", "cast_features", "write_shard"]

SUFFIXES: dict[Container, str] = {"hdf5": ".h5", "arrow": ".arrow"}
_WRITERS = {".h5": write_hdf5, ".arrow": write_arrow}


def cast_features(
    features_NPD: npt.NDArray[np.floating[Any]], dtype: StorageDtype, names: Sequence[str]
) -> npt.NDArray[np.floating[Any]]:
    """Features in the storage dtype.

    Args:
        features_NPD: Features of shape (N, P, D).
        dtype: ``float16`` or ``float32``.
        names: What each image is called in errors.

    Raises:
        ShardError: If a value is not finite, or is too large for the dtype; names the image.
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
    """Write a shard, atomically; the suffix of ``path`` decides the container.

    Args:
        path: Final path, ending in ``.h5`` or ``.arrow``.
        features_NPD: Features in the spec's dtype, shape (N, P, D) with N of at least 1.
        image_sha256_N32: Sha256 of each picture's file, as (N, 32) bytes.
        spec: What made the features.
        num_patches_N: Valid patches of each image; all of them if None.
        failed: Pictures of the shard's part of the plan without a row, for the record.

    Returns:
        The shard's record; its commit record is the caller's to write.

    Raises:
        ShardError: If the arrays do not fit the spec, or a value is not finite. Nothing is left
            at ``path`` then, or what was there before.
    """
    if path.suffix not in _WRITERS:
        raise ShardError(f"{path}: expected a name that ends in {' or '.join(_WRITERS)}")
    if num_patches_N is None:
        num_patches_N = np.full(len(features_NPD), spec.num_patches, np.int32)
    N = len(features_NPD)
    columns: list[tuple[str, npt.NDArray[Any], tuple[int, ...], str]] = [
        ("features", features_NPD, (N, *spec.row_shape), spec.dtype),
        ("image_sha256", image_sha256_N32, (N, 32), "uint8"),
        ("num_patches", num_patches_N, (N,), "int32"),
    ]
    for name, array, shape, dtype in columns:
        if N == 0 or array.shape != shape or array.dtype != dtype:
            raise ShardError(
                f"{path.name}: {name} is {array.dtype}{array.shape}, expected {dtype}{shape} with "
                "at least one row"
            )
    _check_finite(features_NPD, [row.tobytes().hex() for row in image_sha256_N32])
    features_NPD = np.ascontiguousarray(features_NPD)
    image_sha256_N32 = np.ascontiguousarray(image_sha256_N32)
    records = []

    def write(tmp: Path) -> None:
        offset = _WRITERS[path.suffix](tmp, features_NPD, image_sha256_N32, num_patches_N, spec)
        records.append(
            ShardRecord(
                file=path.name,
                rows=N,
                failed=failed,
                data_offset=offset,
                data_nbytes=features_NPD.nbytes,
                file_nbytes=tmp.stat().st_size,
                sha256=file_sha256(tmp),
            )
        )

    replace_file(path, write)
    return records[0]


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
        raise ShardError(f"the features of image {name} {problem}")
