"""Export to Multimodal-CoT's files: one array of features by row, and ``name_map.json``.

Shape suffixes: R = rows of a part, P = patches, D = feature width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmcot_data.files import replace_file
from mmcot_data.interchange.array_import import PER_PICTURE
from mmcot_data.interchange.name_map import write_row_map
from mmcot_data.interchange.stored_rows import (
    REFERENCE_ROLES,
    choose_rows,
    read_rows,
    refuse_existing,
)
from mmcot_data.shards.feature_set_writer import Progress
from mmcot_data.shards.planning import folder_name
from mmcot_data.shards.schema import FeatureSpec
from mmcot_data.shards.store import ShardStore

__all__ = ["ArrayExport", "ArrayFormat", "export_array"]

ArrayFormat = Literal["npy", "pth"]

_Parts = Iterator[npt.NDArray[np.floating[Any]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayExport:
    """What was written."""

    path: Path
    name_map: Path
    num_questions: int
    shape: tuple[int, ...]
    num_padded: int
    """Rows with fewer valid patches than others; an array has no mask."""


def export_array(
    store: ShardStore,
    out: Path,
    to: ArrayFormat,
    *,
    roles: Sequence[str] = REFERENCE_ROLES,
    share_rows: bool = False,
    on_progress: Progress | None = None,
) -> ArrayExport:
    """Write ``<encoder>.npy`` or ``<encoder>.pth`` and ``name_map.json`` into a folder.

    The rows stand in the order of the index, in the stored dtype, with shape (N, P, D); where P is
    1 with shape (N, D), as Multimodal-CoT's ``resnet.npy``, unless they were imported from (N, 1,
    D). Arrays of several encoders share the name map.

    Args:
        store: The opened feature set; its rows are compared with their checksums if it checks them.
        out: The folder.
        to: ``npy`` or ``pth``; the latter needs PyTorch.
        roles: Image roles; the first that a question has counts.
        share_rows: Give questions with the same picture the same row. Multimodal-CoT reads that as
            well, but its own files have a row for each question.
        on_progress: Called with the rows done and the number of all.

    Raises:
        DataError: If the folder's name map is of other questions or rows.
        ShardError: If the array is there already, or the feature set is damaged.
        DiskFullError: If there is no room.
    """
    name = folder_name(store.spec.encoder)
    path, name_map = out / f"{name}.{to}", out / "name_map.json"
    refuse_existing(path)
    chosen = choose_rows(store, roles)
    rows, places = chosen.rows_Q, np.arange(len(chosen.rows_Q))
    if share_rows:
        _, first, places = np.unique(rows, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rows, places = rows[first[order]], np.argsort(order)[places]
    row_of = dict(zip(chosen.question_ids, places.tolist(), strict=True))
    if name_map.exists():
        write_row_map(name_map, row_of)
    P, D = store.spec.row_shape
    shape = (len(rows), D) if _is_pooled(store.spec) else (len(rows), P, D)
    write = _write_npy if to == "npy" else _write_pth
    parts = _counted(read_rows(store, rows), len(rows), on_progress)
    replace_file(path, lambda tmp: write(tmp, parts, shape, store.mapped.dtype))
    write_row_map(name_map, row_of)
    return ArrayExport(
        path=path,
        name_map=name_map,
        num_questions=len(chosen.question_ids),
        shape=shape,
        num_padded=int((chosen.num_patches_Q < P).sum()),
    )


def _is_pooled(spec: FeatureSpec) -> bool:
    for step in spec.preprocessing:
        match step:
            case {"step": "imported", "layout": layout} if not layout.endswith(PER_PICTURE):
                return False
    return spec.num_patches == 1


def _counted(parts: _Parts, total: int, on_progress: Progress | None) -> _Parts:
    done = 0
    for part_RPD in parts:
        if on_progress is not None:
            on_progress(done, total)
        yield part_RPD
        done += len(part_RPD)
    if on_progress is not None:
        on_progress(done, total)


def _write_npy(path: Path, parts: _Parts, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part_RPD in parts:
            file.write(part_RPD.data.cast("B"))


def _write_pth(path: Path, parts: _Parts, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Save a tensor whose memory is a file, so that it never stands in memory as a whole."""
    import torch

    values = path.with_name(f"{path.name}.values")
    try:
        with values.open("wb") as file:
            for part_RPD in parts:
                file.write(part_RPD.data.cast("B"))
        tensor = torch.from_file(
            str(values), shared=True, size=math.prod(shape), dtype=getattr(torch, dtype.name)
        )
        with path.open("wb") as file:
            torch.save(tensor.reshape(shape), file)
    finally:
        values.unlink(missing_ok=True)
