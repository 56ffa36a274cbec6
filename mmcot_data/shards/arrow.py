"""The Arrow container: an IPC file of one record batch whose first column is a page-aligned block.

Nested fixed-size lists of floats are what pyarrow, polars and Hugging Face datasets all read
without a copy.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mmcot_data.errors import ShardError
from mmcot_data.shards.columns import PAGE_NBYTES, Frame, ShardColumns
from mmcot_data.shards.schema import FORMAT_VERSION, FeatureSpec

__all__ = ["as_nested_lists", "frame_arrow", "read_arrow_columns"]


def frame_arrow(columns: ShardColumns, spec: FeatureSpec) -> Frame:
    """What an Arrow shard holds before and after its features.

    pyarrow aligns buffers to 8 bytes only. The length of the messages before the features does not
    depend on the number of rows, so one row is written first to see where its features lie, and
    the schema's metadata are then padded by what is missing to the next page. The same input gives
    the same bytes.

    Raises:
        ShardError: If pyarrow did not lay the columns out as expected.
    """
    arrays = {
        "features": as_nested_lists(columns.features_NPD),
        "image_sha256": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(32),
            len(columns.image_sha256_N32),
            [None, pa.py_buffer(columns.image_sha256_N32)],
        ),
        "num_patches": pa.array(columns.num_patches_N),
        "row_crc32": pa.array(columns.row_crc32_N),
    }
    metadata = {"format_version": str(FORMAT_VERSION), "spec": json.dumps(spec.to_json())}
    one_row = {name: array.slice(0, 1) for name, array in arrays.items()}
    trial = _write_around(columns, one_row, metadata | {"_pad": ""})
    pad = " " * (-trial.features_offset % PAGE_NBYTES)
    around = _write_around(columns, arrays, metadata | {"_pad": pad})
    if around.features_offset % PAGE_NBYTES:
        raise ShardError(
            f"pyarrow {pa.__version__} laid the features out at {around.features_offset}, expected "
            f"a multiple of {PAGE_NBYTES}"
        )
    return Frame(bytes(around.head), bytes(around.tail), around.crc_offset)


def read_arrow_columns(path: Path) -> ShardColumns:
    """All columns of a shard, copied into memory but for the features, which are empty."""
    with pa.memory_map(str(path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
        digests = b"".join(batch["image_sha256"].to_pylist())
        dtype = batch["features"].values.values.type.to_pandas_dtype()
        return ShardColumns(
            np.empty((0, 0, 0), dtype),
            np.frombuffer(digests, np.uint8).reshape(-1, 32),
            batch["num_patches"].to_numpy().copy(),
            batch["row_crc32"].to_numpy().copy(),
        )


def as_nested_lists(features_NPD: npt.NDArray[np.floating[Any]]) -> Any:
    """Features as an Arrow array of N fixed-size lists of P fixed-size lists of D floats.

    Nothing is copied: the array lives on the memory of ``features_NPD``, which must be contiguous.
    """
    _, P, D = features_NPD.shape
    values = pa.array(features_NPD.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(values, D), P)


class _AroundFeatures(io.RawIOBase):
    """Takes a file that pyarrow writes, but not the features in it."""

    def __init__(self, columns: ShardColumns) -> None:
        self.head = bytearray()
        self.tail = bytearray()
        self.features_offset = self.crc_offset = -1
        self._position = 0
        self._features_address = columns.features_NPD.ctypes.data
        self._crc_address = columns.row_crc32_N.ctypes.data

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        """Columns come as buffers at the address of their array, what describes them as bytes."""
        address = getattr(data, "address", None)
        if address == self._features_address:
            self.features_offset = self._position
        else:
            (self.head if self.features_offset < 0 else self.tail).extend(data)
            if address == self._crc_address:
                self.crc_offset = self._position
        nbytes = memoryview(data).nbytes
        self._position += nbytes
        return nbytes


def _write_around(
    columns: ShardColumns, arrays: dict[str, Any], metadata: dict[str, str]
) -> _AroundFeatures:
    schema = pa.schema(
        [pa.field(name, array.type, nullable=False) for name, array in arrays.items()],
        metadata=metadata,
    )
    sink = _AroundFeatures(columns)
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch(list(arrays.values()), schema=schema))
    if min(sink.features_offset, sink.crc_offset) < 0:
        raise ShardError(
            f"pyarrow {pa.__version__} copied a column before it wrote it, expected it not to"
        )
    return sink
