"""The same rows as each of the store's rivals keeps them, and how one reads a batch from it.

Shape suffixes: N = rows, B = batch, P = patches, D = feature width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet

from mmcot_data.shards import FeatureSpec, open_features
from mmcot_data.shards.arrow import as_nested_lists
from mmcot_data.shards.feature_set_writer import (
    FeatureSource,
    ShardPart,
    ShardRows,
    write_feature_set,
)
from mmcot_data.shards.index import INDEX_SCHEMA
from mmcot_data.shards.planning import shard_files
from mmcot_data.shards.schema import Container, PlanKey

__all__ = ["LAYOUTS", "SHAPES", "Batch", "Layout", "Rows", "write_set"]

SHAPES = {
    "vit": (145, 1024),
    "clip": (50, 768),
    "detr": (100, 256),
    "tiny": (50, 192),
}
"""(P, D) by encoder."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be read, as numbers and as question ids."""

    rows: list[int]
    question_ids: list[str]


ReadBatch = Callable[[Batch], object]
"""Gives the features (B, P, D) of a batch in one array or tensor."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows that are the same in every layout, and made anew where they are needed."""

    shape: tuple[int, int]
    num_rows: int
    shard_size: int

    @property
    def row_nbytes(self) -> int:
        """Size of a row in float16."""
        return 2 * self.shape[0] * self.shape[1]

    def batches(self, seed: int, batch_size: int) -> list[Batch]:
        """All rows once, in the order that the seed decides."""
        order = np.random.default_rng(seed).permutation(self.num_rows).tolist()
        ids = [str(row) for row in range(self.num_rows)]
        return [
            Batch(part := order[start : start + batch_size], [ids[row] for row in part])
            for start in range(0, self.num_rows - batch_size + 1, batch_size)
        ]

    def shards(self) -> Iterator[npt.NDArray[np.float16]]:
        """Blocks (N, P, D): noise, with the number of the row in the first element."""
        random = np.random.default_rng(0)
        noise = random.standard_normal((self.shard_size, *self.shape), np.float32)
        block_NPD = noise.astype(np.float16)
        for start in range(0, self.num_rows, self.shard_size):
            part_NPD = block_NPD[: min(self.shard_size, self.num_rows - start)]
            part_NPD[:, 0, 0] = np.arange(start, start + len(part_NPD)) % 2048
            part_NPD[:, 0, 1] = np.arange(start, start + len(part_NPD)) // 2048
            yield part_NPD


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to keep rows."""

    name: str
    write: Callable[[Path, Rows], None]
    open: Callable[[Path, Rows], ReadBatch]


def write_set(folder: Path, rows: Rows, container: Container) -> None:
    """A feature set; question ``i`` has row ``i``."""
    P, D = rows.shape
    spec = FeatureSpec(
        encoder="noise",
        model_id="noise",
        revision=None,
        weights_sha256=None,
        random_weights=0,
        layer="none",
        preprocessing=[],
        precision="fp32",
        precision_error=None,
        backend="none",
        num_patches=P,
        feature_dim=D,
        grid=None,
        versions={},
        dtype="float16",
        data_licence="none",
    )
    plan = PlanKey(
        format=container,
        num_images=rows.num_rows,
        request_sha256="",
        shard_size=rows.shard_size,
    )
    blocks = rows.shards()
    files = shard_files(plan)
    sizes = [min(rows.shard_size, rows.num_rows - i * rows.shard_size) for i in range(len(files))]

    def read(_number: int) -> ShardRows:
        block_NPD = next(blocks)
        N = len(block_NPD)
        return ShardRows(block_NPD, np.zeros((N, 32), np.uint8), np.full(N, P, np.int32))

    values = {
        "question_id": [str(row) for row in range(rows.num_rows)],
        "role": ["question"] * rows.num_rows,
        "shard": [file for file, size in zip(files, sizes, strict=True) for _ in range(size)],
        "row": [row for size in sizes for row in range(size)],
        "num_patches": [P] * rows.num_rows,
        "status": ["ok"] * rows.num_rows,
    }
    absent = [None] * rows.num_rows
    source = FeatureSource(
        spec=spec,
        plan=plan,
        request_sha256="",
        shards=tuple(
            ShardPart(file=file, rows=size, pixel_sha256=("",) * size)
            for file, size in zip(files, sizes, strict=True)
        ),
        read=read,
        index=pl.DataFrame(
            {name: values.get(name, absent) for name in INDEX_SCHEMA}, schema=INDEX_SCHEMA
        ),
    )
    write_feature_set(folder, source)


def _ours(container: Container, *, fresh: bool = False) -> Layout:
    def open_set(folder: Path, rows: Rows) -> ReadBatch:
        features = open_features(folder)
        out_BPD = np.empty((0, *rows.shape), np.float16)

        def read(batch: Batch) -> object:
            nonlocal out_BPD
            if fresh:
                return features.gather(batch.question_ids)[0]
            if len(out_BPD) != len(batch.rows):
                out_BPD = np.empty((len(batch.rows), *rows.shape), np.float16)
            return features.gather(batch.question_ids, out_BPD)[0]

        return read

    name = f"gather, {'HDF5' if container == 'hdf5' else 'Arrow'}"
    return Layout(
        f"{name}, fresh buffer" if fresh else name,
        lambda folder, rows: write_set(folder, rows, container),
        open_set,
    )


def _write_npy(folder: Path, rows: Rows) -> None:
    for number, block_NPD in enumerate(rows.shards()):
        np.save(folder / f"{number:05d}.npy", block_NPD)


def _open_npy(folder: Path, rows: Rows) -> ReadBatch:
    maps = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))]
    size = rows.shard_size
    return lambda batch: np.stack([maps[row // size][row % size] for row in batch.rows])


def _write_hdf5(folder: Path, rows: Rows) -> None:
    """As most do: an extensible data set, one row a chunk."""
    with h5py.File(folder / "features.h5", "w") as file:
        features = file.create_dataset(
            "features",
            (0, *rows.shape),
            "f2",
            maxshape=(None, *rows.shape),
            chunks=(1, *rows.shape),
        )
        for block_NPD in rows.shards():
            start = len(features)
            features.resize(start + len(block_NPD), axis=0)
            features[start:] = block_NPD


def _open_hdf5(folder: Path, _rows: Rows) -> ReadBatch:
    features = h5py.File(folder / "features.h5")["features"]
    return lambda batch: np.stack([features[row] for row in batch.rows])


def _write_arrow_dataset(folder: Path, rows: Rows) -> None:
    import datasets

    parts = []
    for block_NPD in rows.shards():
        table = pa.table({"features": as_nested_lists(block_NPD.copy())})
        parts.append(datasets.Dataset(datasets.table.InMemoryTable(table)))
    datasets.disable_progress_bars()
    datasets.concatenate_datasets(parts).save_to_disk(folder / "dataset")


def _open_arrow_dataset(folder: Path, _rows: Rows) -> ReadBatch:
    import datasets
    import torch

    data = datasets.load_from_disk(str(folder / "dataset"))
    data = data.with_format("torch", dtype=torch.float16)
    return lambda batch: data[batch.rows]["features"]


def _write_parquet(folder: Path, rows: Rows) -> None:
    """One row a group: the quickest to read at random."""
    P, D = rows.shape
    schema = pa.schema([("features", pa.list_(pa.float16(), P * D))])
    with pa.parquet.ParquetWriter(folder / "features.parquet", schema, compression="none") as file:
        for block_NPD in rows.shards():
            values = pa.array(block_NPD.reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(values, P * D)
            file.write_table(pa.table([column], schema=schema), row_group_size=1)


def _open_parquet(folder: Path, rows: Rows) -> ReadBatch:
    file = pa.parquet.ParquetFile(folder / "features.parquet", memory_map=True)

    def read(batch: Batch) -> object:
        column = file.read_row_groups(batch.rows, use_threads=False).column(0).combine_chunks()
        return column.flatten().to_numpy().reshape(-1, *rows.shape)

    return read


def _write_matrix(folder: Path, rows: Rows) -> None:
    matrix_NPD = np.lib.format.open_memmap(
        folder / "features.npy", "w+", np.float16, (rows.num_rows, *rows.shape)
    )
    start = 0
    for block_NPD in rows.shards():
        matrix_NPD[start : start + len(block_NPD)] = block_NPD
        start += len(block_NPD)
    matrix_NPD.flush()


def _open_matrix(folder: Path, _rows: Rows) -> ReadBatch:
    """Multimodal-CoT: the matrix in memory, a tensor a question, a batch through Python lists."""
    import torch
    from transformers.utils import to_py_obj

    matrix_NPD: npt.NDArray[Any] = np.load(folder / "features.npy")
    return lambda batch: torch.tensor(
        to_py_obj([torch.tensor(matrix_NPD[row]) for row in batch.rows])
    )


LAYOUTS = (
    _ours("hdf5"),
    _ours("arrow"),
    _ours("arrow", fresh=True),
    Layout("npy memory map", _write_npy, _open_npy),
    Layout("h5py, a row a chunk", _write_hdf5, _open_hdf5),
    Layout("Parquet, a row a group", _write_parquet, _open_parquet),
    Layout("HF datasets, torch format", _write_arrow_dataset, _open_arrow_dataset),
    Layout("Multimodal-CoT's way", _write_matrix, _open_matrix),
)
