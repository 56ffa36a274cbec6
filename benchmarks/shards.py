"""Random batches from shards: both containers beside memcpy, the limit, and plain h5py, the peer.

All readers take turns in one process on the same rows with a warm page cache; the figure that
counts is the ratio to memcpy.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.extraction import ExtractionConfig, extract_features
from mmcot_data.sample import draw_sample
from mmcot_data.shards import FeatureSet, open_features

_ROUNDS = 7
_BATCH = 32


def main(argv: Sequence[str] | None = None) -> None:
    """Draw a sample, extract it in both formats, and time the readers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=2000)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        readers = _readers(Path(folder), arguments.questions)
        seconds: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(_ROUNDS):
            for name, read in readers.items():
                start = time.perf_counter()
                num_rows = read()
                seconds[name].append((time.perf_counter() - start) / num_rows)
        limit = float(np.median(seconds["memcpy"]))
        table = Table(title=f"rows/s in batches of {_BATCH}, median of {_ROUNDS} rounds")
        for column in ("reader", "rows/s", "of memcpy"):
            table.add_column(column, justify="left" if column == "reader" else "right")
        for name, values in seconds.items():
            median = float(np.median(values))
            table.add_row(name, f"{1 / median:,.0f}", f"{limit / median:.2f}")
        Console().print(table)


def _readers(folder: Path, num_questions: int) -> dict[str, Callable[[], int]]:
    draw_sample(folder / "data", num_questions=num_questions)
    for name in ("hdf5", "arrow"):
        config = ExtractionConfig(
            data=folder / "data",
            out=folder / name,
            encoder=EncoderConfig(name="tiny"),
            format="arrow" if name == "arrow" else "hdf5",
            batch_size=32,
        )
        extract_features(config)
    hdf5, arrow = (open_features(folder / name / "tiny") for name in ("hdf5", "arrow"))
    ids = np.random.default_rng(0).permutation(hdf5.question_ids).tolist()
    batches = [ids[i : i + _BATCH] for i in range(0, len(ids) - _BATCH + 1, _BATCH)]
    shape = (_BATCH, *hdf5.spec.row_shape)
    out_BPD = np.empty(shape, hdf5.spec.dtype)
    matrix_NPD, _ = hdf5.gather(ids)
    index = pl.read_parquet(folder / "hdf5" / "tiny" / "index.parquet")
    places = {
        question_id: (shard, row)
        for question_id, shard, row in index.filter(role="question")
        .select("question_id", "shard", "row")
        .iter_rows()
    }
    paths = (folder / "hdf5" / "tiny").glob("*.h5")
    files = {path.name: h5py.File(path) for path in paths}

    def memcpy() -> int:
        for start in range(0, len(batches) * _BATCH, _BATCH):
            for row in range(_BATCH):
                out_BPD[row] = matrix_NPD[start + row]
        return len(batches) * _BATCH

    def ours(features: FeatureSet) -> Callable[[], int]:
        def read() -> int:
            for batch in batches:
                features.gather(batch, out=out_BPD)
            return len(batches) * _BATCH

        return read

    def by_h5py() -> int:
        for batch in batches:
            for item, question_id in enumerate(batch):
                shard, row = places[question_id]
                out_BPD[item] = files[shard]["features"][row]
        return len(batches) * _BATCH

    return {
        "memcpy": memcpy,
        "gather, HDF5": ours(hdf5),
        "gather, Arrow": ours(arrow),
        "h5py, row by row": by_h5py,
    }


if __name__ == "__main__":
    main()
