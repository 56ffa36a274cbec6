"""The HDF5 container: one contiguous, page-aligned dataset that h5py and a memory map both read.

Shape suffixes: N = images, P = patches, D = feature width.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.shards.schema import FORMAT_VERSION, FeatureSpec

__all__ = ["PAGE_NBYTES", "write_hdf5"]

PAGE_NBYTES = 4096


def write_hdf5(
    path: Path,
    features_NPD: npt.NDArray[np.floating[Any]],
    image_sha256_N32: npt.NDArray[np.uint8],
    num_patches_N: npt.NDArray[np.int32],
    spec: FeatureSpec,
) -> int:
    """Write one HDF5 shard to a path that does not exist yet.

    The same input gives the same bytes. Chunks, compression and extensible shapes are avoided:
    each of them would make the features unreadable by memory map.

    Returns:
        The byte at which the features start, a multiple of 4096.

    Raises:
        ShardError: If the HDF5 library did not lay the features out as asked.
    """
    with h5py.File(
        path,
        "w",
        libver="v110",
        locking=False,
        alignment_threshold=min(PAGE_NBYTES, features_NPD.nbytes),
        alignment_interval=PAGE_NBYTES,
    ) as file:
        features = file.create_dataset("features", data=features_NPD)
        features.attrs["dim_labels"] = ["image", "patch", "feature"]
        file.create_dataset("image_sha256", data=image_sha256_N32)
        file.create_dataset("num_patches", data=num_patches_N)
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["spec"] = json.dumps(spec.to_json())
    with h5py.File(path, "r", locking=False) as file:
        features = file["features"]
        offset = features.id.get_offset()
        if features.chunks is not None or offset is None or offset % PAGE_NBYTES:
            raise ShardError(
                f"{path.name}: h5py {h5py.__version__} laid the features out at {offset}, expected "
                f"one block at a multiple of {PAGE_NBYTES}"
            )
    return int(offset)
