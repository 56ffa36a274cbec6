"""The Arrow container: an IPC file of one record batch whose first column is a page-aligned block.

Nested fixed-size lists of floats are what pyarrow, polars and Hugging Face datasets all read
without a copy.

Shape suffixes: N = images, P = patches, D = feature width.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcot_data.errors import ShardError
from mmcot_data.shards.schema import FORMAT_VERSION, FeatureSpec

__all__ = ["write_arrow"]

_PAGE_NBYTES = 4096


def write_arrow(
    path: Path,
    features_NPD: npt.NDArray[np.floating[Any]],
    image_sha256_N32: npt.NDArray[np.uint8],
    num_patches_N: npt.NDArray[np.int32],
    spec: FeatureSpec,
) -> int:
    """Write one Arrow shard.

    pyarrow aligns buffers to 8 bytes only. The length of the messages before the features does not
    depend on the number of rows, so one row is written first to see where its features lie, and
    the schema's metadata are then padded by what is missing to the next page. The same input gives
    the same bytes.

    Returns:
        The byte at which the features start, a multiple of 4096.

    Raises:
        ShardError: If pyarrow did not lay the features out as expected.
    """
    arrays = [
        _nested_lists(features_NPD),
        pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32), len(image_sha256_N32), [None, pa.py_buffer(image_sha256_N32)]
        ),
        pa.array(num_patches_N),
    ]
    metadata = {"format_version": str(FORMAT_VERSION), "spec": json.dumps(spec.to_json())}
    _write_file(path, [array.slice(0, 1) for array in arrays], metadata, pad=0)
    _write_file(path, arrays, metadata, pad=-_features_offset(path) % _PAGE_NBYTES)
    offset = _features_offset(path)
    if offset % _PAGE_NBYTES:
        raise ShardError(
            f"{path.name}: pyarrow {pa.__version__} laid the features out at {offset}, expected a "
            f"multiple of {_PAGE_NBYTES}"
        )
    return offset


def _nested_lists(features_NPD: npt.NDArray[np.floating[Any]]) -> Any:
    _, P, D = features_NPD.shape
    values = pa.array(features_NPD.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(values, D), P)


def _write_file(path: Path, arrays: list[Any], metadata: dict[str, str], *, pad: int) -> None:
    names = ("features", "image_sha256", "num_patches")
    schema = pa.schema(
        [
            pa.field(name, array.type, nullable=False)
            for name, array in zip(names, arrays, strict=True)
        ],
        metadata={**metadata, "_pad": " " * pad},
    )
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))


def _features_offset(path: Path) -> int:
    with pa.memory_map(str(path)) as source:
        start = source.read_buffer(source.size()).address
        source.seek(0)
        column = pa.ipc.open_file(source).get_batch(0).column(0)
        while pa.types.is_fixed_size_list(column.type):
            column = column.values
        return int(column.buffers()[1].address - start)
