"""Open an array of features by row: ``.npy``, or a tensor in ``.pth``, with ``name_map.json``."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.files import file_sha256
from mmcot_data.interchange.feature_file import FeatureFile, QuestionRow, storage_dtype
from mmcot_data.interchange.name_map import read_row_map

__all__ = ["PER_PICTURE", "open_array_file"]

PER_PICTURE = "(rows, features)"
"""End of the layout where an array has no axis of patches."""


def open_array_file(path: Path, name_map: Path) -> FeatureFile:
    """Open an array by memory map.

    Args:
        path: ``.npy``, or ``.pth`` or ``.pt`` with one tensor, of shape (N, P, D), or (N, D) as
            pooled features; float16 or float32.
        name_map: The row of each question, see ``read_row_map``.

    Raises:
        DataError: If the name map does not fit.
        ShardError: If it is no such file. Python objects in it are never unpickled.
    """
    if not path.is_file():
        raise ShardError(f"{path} does not exist; expected a file of features")
    is_numpy = path.suffix == ".npy"
    array = _open_npy(path) if is_numpy else _open_pth(path)
    dtype = storage_dtype(array.dtype, str(path))
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ShardError(
            f"{path} has the shape {array.shape}, expected (rows, patches, features), or (rows, "
            "features) for pictures of one patch"
        )
    rows_NPD = array if array.ndim == 3 else array[:, None]
    N, P, D = rows_NPD.shape
    axes = "(rows, patches, features)" if array.ndim == 3 else PER_PICTURE
    rows = read_row_map(name_map, N)
    return FeatureFile(
        path=path,
        sha256=file_sha256(path),
        layout=f"{'npy' if is_numpy else 'pth'} {axes}",
        row_shape=(P, D),
        dtype=dtype,
        read=lambda start, stop: np.ascontiguousarray(rows_NPD[start:stop], dtype),
        questions=tuple(QuestionRow(key, None, row) for key, row in rows.items()),
        num_patches_N=np.full(N, P, np.int32),
        image_sha256_N32=np.zeros((N, 32), np.uint8),
    )


def _open_npy(path: Path) -> npt.NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        raise ShardError(
            f"{path} can't be read as a .npy file of numbers ({error}); Python objects are never "
            "unpickled. If it is cut off, fetch it again"
        ) from error


def _open_pth(path: Path) -> npt.NDArray[Any]:
    import pickle

    import torch

    try:
        tensor = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ShardError(
            f"{path} can't be read as a file of one tensor ({reason:.300}); other objects are "
            "never unpickled, and a file of a PyTorch before 1.6 has no memory map: where you "
            "trust it, load it there and save the tensor anew with torch.save"
        ) from error
    if not isinstance(tensor, torch.Tensor):
        raise ShardError(
            f"{path} holds a {type(tensor).__name__}, expected one tensor; save the tensor alone"
        )
    if tensor.dtype not in (torch.float16, torch.float32):
        raise ShardError(
            f"{path} holds {str(tensor.dtype).removeprefix('torch.')}, expected float16 or "
            "float32: features are never rounded on the way; cast the tensor, and save it anew"
        )
    return tensor.detach().numpy()
