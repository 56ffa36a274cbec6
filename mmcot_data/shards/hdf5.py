"""The HDF5 container: one contiguous, page-aligned dataset that h5py and a memory map both read."""

import io
import json
from pathlib import Path
from typing import Any

import h5py

from mmcot_data.errors import ShardError
from mmcot_data.shards.columns import PAGE_NBYTES, Frame, ShardColumns
from mmcot_data.shards.schema import FORMAT_VERSION, FeatureSpec

__all__ = ["frame_hdf5", "read_hdf5_columns"]


def frame_hdf5(columns: ShardColumns, spec: FeatureSpec) -> Frame:
    """What an HDF5 shard holds before and after its features.

    The HDF5 library only reserves the space of the features and never touches the disk, where a
    write that fails would end the process. The same input gives the same bytes. Chunks,
    compression and extensible shapes are avoided: each of them would make the features unreadable
    by memory map.

    Raises:
        ShardError: If the library did not lay the columns out as asked.
    """
    features_NPD = columns.features_NPD
    reserved = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    reserved.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    reserved.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    memory = _SparseFile()
    with h5py.File(
        memory,
        "w",
        libver="v110",
        alignment_threshold=min(PAGE_NBYTES, features_NPD.nbytes),
        alignment_interval=PAGE_NBYTES,
    ) as file:
        features = file.create_dataset(
            "features", features_NPD.shape, features_NPD.dtype, dcpl=reserved
        )
        features.attrs["dim_labels"] = ["image", "patch", "feature"]
        file.create_dataset("image_sha256", data=columns.image_sha256_N32)
        file.create_dataset("num_patches", data=columns.num_patches_N)
        checksums = file.create_dataset("row_crc32", data=columns.row_crc32_N)
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["spec"] = json.dumps(spec.to_json())
        offsets = (features.id.get_offset(), checksums.id.get_offset())
        if features.chunks or checksums.chunks or None in offsets or offsets[0] % PAGE_NBYTES:
            raise ShardError(
                f"h5py {h5py.__version__} laid the columns out at {offsets}, expected contiguous "
                f"blocks, the features at a multiple of {PAGE_NBYTES}"
            )
    end = offsets[0] + features_NPD.nbytes
    return Frame(memory.read_range(0, offsets[0]), memory.read_range(end, memory.size), offsets[1])


def read_hdf5_columns(path: Path) -> ShardColumns:
    """All columns of a shard, copied into memory but for the features, which are empty."""
    with h5py.File(path, "r", locking=False) as file:
        return ShardColumns(
            file["features"][:0],
            file["image_sha256"][()],
            file["num_patches"][()],
            file["row_crc32"][()],
        )


class _SparseFile(io.RawIOBase):
    """A file in memory of which only the pages that were written take space."""

    def __init__(self) -> None:
        self.size = 0
        self._pages: dict[int, bytearray] = {}
        self._position = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view):
            number, start = divmod(self._position + done, PAGE_NBYTES)
            page = self._pages.setdefault(number, bytearray(PAGE_NBYTES))
            part = view[done : done + PAGE_NBYTES - start]
            page[start : start + len(part)] = part
            done += len(part)
        self._position += done
        self.size = max(self.size, self._position)
        return done

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read_range(self._position, min(self._position + len(view), self.size))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_range(self, start: int, stop: int) -> bytes:
        first, last = start // PAGE_NBYTES, -(-stop // PAGE_NBYTES)
        empty = bytes(PAGE_NBYTES)
        pages = b"".join(self._pages.get(number, empty) for number in range(first, last))
        return pages[start - first * PAGE_NBYTES :][: max(0, stop - start)]
