"""The shard store beside its limits, copying in memory and reading the disk in order, and peers.

All readers take turns in one process on the same random rows; what counts are the ratios. The
tables: warm (each reader has just read the same rows), cold (the files are not in the system's
cache), the private memory that each reader takes, opening 100 shards, and how the private memory
of the store grows with the features. In its first pass the store compares every row with its
checksum.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.measuring import evict, print_table, read_sequentially
from benchmarks.store_layouts import LAYOUTS, SHAPES, Batch, Layout, ReadBatch, Rows, write_set
from mmcot_data.shards import open_features

__all__ = ["main"]

_BATCH = 32
_IN_MEMORY = "Multimodal-CoT's way"
_SLOW = ("HF datasets, torch format", _IN_MEMORY)
_SLOW_BATCHES = 4


def main(argv: Sequence[str] | None = None) -> None:
    """Write every layout, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.store",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--encoder", nargs="+", choices=SHAPES, default=["detr", "vit"], help="shapes of a row"
    )
    parser.add_argument("--gb", type=float, default=0.5, help="features in float16 (default: 0.5)")
    parser.add_argument("--rounds", type=int, default=7, help="default: 7")
    parser.add_argument(
        "--memory-gb", type=float, nargs="*", default=[1, 8], help="sizes for memory"
    )
    parser.add_argument("--folder", type=Path, help="where the files are written (default: /tmp)")
    arguments = parser.parse_args(argv)
    for encoder in arguments.encoder:
        shape = SHAPES[encoder]
        num_rows = int(arguments.gb * 1e9 / (2 * shape[0] * shape[1]))
        rows = Rows(shape, num_rows, shard_size=max(_BATCH, num_rows // 8))
        with _layouts(rows, arguments.folder) as folders:
            title = f"{encoder} {shape}, {num_rows:,} rows in batches of {_BATCH}"
            _compare_warm(f"{title}: warm", rows, folders, arguments.rounds)
            _compare_cold(f"{title}: cold", rows, folders, max(3, arguments.rounds // 2))
            _compare_memory(f"{title}: private memory of a reader", rows, folders)
    _open_100(arguments.folder)
    _grow(arguments.memory_gb, arguments.folder)


@contextmanager
def _layouts(rows: Rows, root: Path | None) -> Iterator[dict[Layout, Path]]:
    with tempfile.TemporaryDirectory(dir=root) as folder:
        folders = {}
        for layout in LAYOUTS:
            folders[layout] = Path(folder) / layout.name.replace(" ", "-").replace(",", "")
            folders[layout].mkdir()
            layout.write(folders[layout], rows)
        yield folders


def _compare_warm(title: str, rows: Rows, folders: dict[Layout, Path], rounds: int) -> None:
    matrix_NPD = np.concatenate([block_NPD.copy() for block_NPD in rows.shards()])
    out_BPD = np.empty((_BATCH, *rows.shape), np.float16)

    def copy(batch: Batch) -> object:
        for item, row in enumerate(batch.rows):
            out_BPD[item] = matrix_NPD[row]
        return out_BPD

    readers: dict[str, ReadBatch] = {"copy in memory": copy}
    readers |= {layout.name: layout.open(folder, rows) for layout, folder in folders.items()}
    _check(readers, matrix_NPD)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for seed in range(rounds):
        batches = rows.batches(seed, _BATCH)
        for name, read in readers.items():
            _time(read, batches, name)
            seconds[name].append(_time(read, batches, name))
    first: dict[str, float] = {}
    for layout, folder in folders.items():
        read_sequentially(_files(folder))
        read = layout.open(folder, rows)
        first[layout.name] = _time(read, rows.batches(rounds, _BATCH), layout.name)
    limit = float(np.median(seconds["copy in memory"]))
    reference = float(np.median(seconds[_IN_MEMORY]))
    table = [
        (
            name,
            f"{1 / np.median(values):,.0f}",
            f"{rows.row_nbytes / np.median(values) / 1e9:.2f}",
            f"{limit / np.median(values):.3f}",
            f"{reference / np.median(values):,.1f}",
            f"{1 / first[name]:,.0f}" if name in first else "",
        )
        for name, values in seconds.items()
    ]
    columns = ("reader", "rows/s", "GB/s", "of copying", "times M-CoT", "rows/s, first pass")
    print_table(title, columns, table)


def _check(readers: dict[str, ReadBatch], matrix_NPD: np.ndarray) -> None:
    numbers = [len(matrix_NPD) - 1, 0, *range(7, _BATCH + 5)]
    batch = Batch(numbers, [str(row) for row in numbers])
    for name, read in readers.items():
        assert np.array_equal(np.asarray(read(batch)), matrix_NPD[numbers]), name


def _time(read: ReadBatch, batches: list[Batch], name: str) -> float:
    """Seconds a row."""
    if name in _SLOW:
        batches = batches[:_SLOW_BATCHES]
    start = time.perf_counter()
    for batch in batches:
        read(batch)
    return (time.perf_counter() - start) / (len(batches) * _BATCH)


def _compare_cold(title: str, rows: Rows, folders: dict[Layout, Path], rounds: int) -> None:
    """Layouts that take minutes read a few batches; the others read every row once.

    Their first eighth is shown too: a map without hints reads what is around a row, up to megabytes
    of it, which pays only where all of a set is read and stays in memory.
    """
    eighths: dict[str, list[float]] = {}
    rates: dict[str, list[float]] = {"disk, in order": []}
    for seed in range(rounds):
        batches = rows.batches(seed, _BATCH)
        for layout in [layout for layout in folders if "fresh" not in layout.name]:
            paths = _files(folders[layout])
            evict(paths)
            if "HDF5" in layout.name:
                rates["disk, in order"].append(read_sequentially(paths))
                evict(paths)
            start = time.perf_counter()
            read = layout.open(folders[layout], rows)
            if layout.name == _IN_MEMORY:
                rate = rows.num_rows * rows.row_nbytes / (time.perf_counter() - start)
                rates.setdefault(f"{layout.name}, loading all", []).append(rate)
            name = f"{layout.name}, batch by batch"
            num_first = len(batches) // 8
            first = _time(read, batches[:num_first], layout.name)
            if layout.name in _SLOW:
                mean = first
            else:
                rest = _time(read, batches[num_first:], layout.name)
                mean = rest + (first - rest) * num_first / len(batches)
                eighths.setdefault(name, []).append(rows.row_nbytes / first)
            rates.setdefault(name, []).append(rows.row_nbytes / mean)
            del read
            if "gather" in layout.name:
                evict(paths)
                rate = _time_ahead(folders[layout], rows, batches)
                rates.setdefault(f"{layout.name}, ahead", []).append(rate)
    limit = float(np.median(rates["disk, in order"]))
    table = [
        (
            name,
            f"{np.median(values) / rows.row_nbytes:,.0f}",
            f"{np.median(values) / 1e9:.2f}",
            f"{np.median(values) / limit:.2f}",
            f"{np.median(eighths[name]) / limit:.2f}" if name in eighths else "",
            " ".join(f"{value / 1e9:.2f}" for value in values),
        )
        for name, values in rates.items()
    ]
    columns = ("reader", "rows/s", "GB/s", "of reading in order", "first eighth", "rounds, GB/s")
    print_table(title, columns, table)


def _time_ahead(folder: Path, rows: Rows, batches: list[Batch]) -> float:
    """Bytes a second of ``batches``, which asks the disk for rows before their turn."""
    features = open_features(folder)
    ids = [question_id for batch in batches for question_id in batch.question_ids]
    start = time.perf_counter()
    for _ in features.batches(ids, _BATCH):
        pass
    return len(ids) * rows.row_nbytes / (time.perf_counter() - start)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _compare_memory(title: str, rows: Rows, folders: dict[Layout, Path]) -> None:
    table = []
    for number, (layout, folder) in enumerate(folders.items()):
        peak = _in_new_process("epoch", number, folder, rows)
        table.append((layout.name, peak))
    print_table(title, ("reader", "MiB after opening, and an epoch"), table)


def _grow(sizes: Sequence[float], root: Path | None) -> None:
    table = []
    for gb in sizes:
        shape = SHAPES["vit"]
        num_rows = int(gb * 1e9 / (2 * shape[0] * shape[1]))
        rows = Rows(shape, num_rows, shard_size=900)
        with tempfile.TemporaryDirectory(dir=root) as folder:
            write_set(Path(folder) / "set", rows, "arrow")
            table.append((f"{gb:g} GB", _in_new_process("epoch", 1, Path(folder) / "set", rows)))
    print_table("vit: private memory of gather over a whole epoch", ("features", "MiB"), table)


def _open_100(root: Path | None) -> None:
    rows = Rows(SHAPES["detr"], 6400, shard_size=64)
    with tempfile.TemporaryDirectory(dir=root) as folder:
        write_set(Path(folder) / "set", rows, "arrow")
        table = []
        for name, code in (("open", "open"), ("open, and a row of each shard", "touch")):
            table.append((name, _in_new_process(code, 1, Path(folder) / "set", rows)))
    print_table("a feature set of 100 shards, 6,400 rows", ("", "CPU seconds"), table)


def _in_new_process(task: str, number: int, folder: Path, rows: Rows) -> str:
    sizes = [*rows.shape, rows.num_rows, rows.shard_size]
    command = [sys.executable, "-m", "benchmarks.store_process", task, number, folder, *sizes]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
