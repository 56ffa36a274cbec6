"""Hugging Face datasets, as ``Dataset.save_to_disk`` leaves and ``load_from_disk`` reads them.

The Arrow files are written here, part by part: the library's own writer takes a thousand rows at
once, several times over. The library says what their schema is.

Shape suffixes: R = rows of a part, P = patches, D = feature width.
"""

import json
import math
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from mmcot_data.errors import ShardError, how_to_install
from mmcot_data.files import file_sha256, replace_file, sync_files, sync_folder
from mmcot_data.interchange.feature_file import (
    FeatureFile,
    QuestionRow,
    parse_spec,
    storage_dtype,
)
from mmcot_data.interchange.stored_rows import read_rows, refuse_existing
from mmcot_data.shards.arrow import as_nested_lists
from mmcot_data.shards.feature_set_writer import Progress
from mmcot_data.shards.planning import digest_json
from mmcot_data.shards.schema import StorageDtype
from mmcot_data.shards.store import ShardStore

__all__ = ["export_hf_dataset", "open_hf_dataset"]

_FILE_NBYTES = 500 * 10**6
_COLUMNS = ("question_id", "role", "image_sha256", "num_patches")


def export_hf_dataset(store: ShardStore, path: Path, on_progress: Progress | None = None) -> int:
    """Write a dataset with a row for each question and image role that has features.

    Its columns are ``question_id``, ``role``, ``image_sha256``, ``num_patches`` and ``features``,
    P lists of D numbers in the stored dtype; its ``info.description`` is the spec as JSON.

    Args:
        store: The opened feature set; its rows are compared with their checksums if it checks them.
        path: Folder of the dataset.
        on_progress: Called with the rows done and the number of all.

    Returns:
        The number of rows.

    Raises:
        ShardError: If the folder exists, the package datasets is not installed, or the feature set
            is damaged.
        DiskFullError: If there is no room.
    """
    refuse_existing(path)
    datasets = _import_datasets()
    spec, index = store.spec, store.read_index().drop_nulls("row")
    P, D = spec.row_shape
    row = datasets.List(datasets.Value(spec.dtype), D)
    features = datasets.Features(
        {name: datasets.Value("string") for name in _COLUMNS[:3]}
        | {"num_patches": datasets.Value("int32"), "features": datasets.List(row, P)}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        tmp.mkdir()
        files = _write_files(tmp, store, index, features.arrow_schema, on_progress)
        datasets.DatasetInfo(
            description=json.dumps(spec.to_json()), license=spec.data_licence, features=features
        ).write_to_directory(str(tmp))
        state: dict[str, object] = {
            "_data_files": [{"filename": file} for file in files],
            "_fingerprint": digest_json([store.manifest.index_sha256, spec.to_json()])[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (tmp / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
        sync_files(tmp)
        tmp.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return index.height


def open_hf_dataset(path: Path) -> FeatureFile:
    """Open a dataset of the columns that ``export_hf_dataset`` writes, by memory map.

    ``image_sha256`` and ``num_patches`` may be absent.

    Raises:
        ShardError: If it is no such dataset, or the package datasets is not installed.
    """
    datasets = _import_datasets()
    try:
        dataset = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ShardError(f"{path} can't be read as a dataset saved to disk: {error}") from error
    if not isinstance(dataset, datasets.Dataset):
        raise ShardError(
            f"{path} holds several splits ({', '.join(dataset)}); import the folder of one of them"
        )
    if absent := sorted({"question_id", "role", "features"} - set(dataset.column_names)):
        raise ShardError(f"{path} has no column {', '.join(absent)}; expected those of an export")
    P, D, dtype = _row_type(dataset.features.arrow_schema.field("features").type, path)
    features = dataset.select_columns(["features"]).with_format("arrow")
    names = [name for name in _COLUMNS if name in dataset.column_names]
    about = dataset.select_columns(names).with_format("arrow")[:].to_pydict()
    N = len(dataset)
    keys = list(zip(about["question_id"], about["role"], strict=True))
    digests = [digest or "00" * 32 for digest in about.get("image_sha256", [None] * N)]
    if not all(isinstance(text, str) for key in keys for text in key) or any(
        not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest)
        for digest in digests
    ):
        raise ShardError(
            f"{path}: expected strings in question_id and role, and a sha256 or null in "
            "image_sha256, found other values"
        )
    return FeatureFile(
        path=path,
        sha256=digest_json([file_sha256(Path(file["filename"])) for file in dataset.cache_files]),
        layout="Hugging Face dataset",
        row_shape=(P, D),
        dtype=dtype,
        read=lambda start, stop: _read_features(features[start:stop]["features"], P, D, path),
        questions=tuple(QuestionRow(*key, row) for row, key in enumerate(keys)),
        num_patches_N=np.array(about.get("num_patches", [P] * N), np.int32),
        image_sha256_N32=np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(N, 32),
        spec=parse_spec(dataset.info.description, f"{path}: description"),
    )


def _import_datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ShardError(
            f"Hugging Face datasets need the package {error.name}, which is not installed: "
            f"{how_to_install('datasets')}"
        ) from error
    return datasets


def _write_files(
    folder: Path,
    store: ShardStore,
    index: pl.DataFrame,
    schema: Any,
    on_progress: Progress | None,
) -> list[str]:
    mapped, total = store.mapped, index.height
    size = max(1, _FILE_NBYTES // (math.prod(store.spec.row_shape) * mapped.dtype.itemsize))
    done = 0

    def write(path: Path, part: pl.DataFrame) -> None:
        nonlocal done
        rows = mapped.starts[part["number"].to_numpy()] + part["row"].to_numpy()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for features_RPD in read_rows(store, rows):
                if on_progress is not None:
                    on_progress(done, total)
                about = index[done : done + len(features_RPD)].select(_COLUMNS).to_arrow()
                table = about.append_column("features", as_nested_lists(features_RPD))
                writer.write_table(table.cast(schema))
                done += len(features_RPD)

    starts = range(0, total, size)
    files = [f"data-{n:05d}-of-{len(starts):05d}.arrow" for n in range(len(starts))]
    for file, start in zip(files, starts, strict=True):
        replace_file(folder / file, partial(write, part=index[start : start + size]))
    if on_progress is not None:
        on_progress(done, total)
    return files


def _row_type(kind: Any, path: Path) -> tuple[int, int, StorageDtype]:
    is_fixed = pa.types.is_fixed_size_list
    if not (is_fixed(kind) and is_fixed(kind.value_type)):
        raise ShardError(
            f"{path}: the column features is {kind}, expected lists of one fixed size of lists of "
            "one fixed size: List(List(Value('float16'), D), P)"
        )
    dtype = storage_dtype(np.dtype(kind.value_type.value_type.to_pandas_dtype()), str(path))
    return kind.list_size, kind.value_type.list_size, dtype


def _read_features(column: Any, P: int, D: int, path: Path) -> npt.NDArray[np.floating[Any]]:
    """The values of a part of the column; copied once, from the memory map."""
    values = [chunk.flatten().flatten() for chunk in column.chunks]
    if sum(map(len, values)) != len(column) * P * D or any(v.null_count for v in values):
        raise ShardError(f"{path}: the column features has rows or values that are null")
    return np.concatenate([v.to_numpy() for v in values]).reshape(-1, P, D)
