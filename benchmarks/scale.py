"""Plan, index, open and sample a feature set of a million pictures, or of a hundred million.

The shards are files with holes, so that terabytes of features fit on a small disk; all that is read
is real: manifest, index, shards with headers and checksums. What takes more than a process has is
computed from a million pictures, and marked so. Memory is private memory: mapped shards are not in
it.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from benchmarks.measuring import print_table
from benchmarks.scale_set import encoder_spec, index_part, write_set
from mmcot_data.encoders.table import ENCODERS
from mmcot_data.files import write_parquet
from mmcot_data.shards.index import INDEX
from mmcot_data.shards.manifest import MANIFEST, Manifest
from mmcot_data.shards.mapped import Check
from mmcot_data.shards.schema import Container

__all__ = ["main"]

_MAX_IN_MEMORY = 1_000_000
_MAX_MAPS = Path("/proc/sys/vm/max_map_count")
_COLUMNS = ("", "measured", "a picture", "beside")

_Row = tuple[str, str, str, str]


def main(argv: Sequence[str] | None = None) -> None:
    """Write a set, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="default: 1_000_000")
    parser.add_argument("--encoder", choices=ENCODERS, default="detr", help="default: detr")
    parser.add_argument("--format", choices=get_args(Container), default="hdf5")
    parser.add_argument(
        "--check", choices=get_args(Check), default="rows", help="as for open_features"
    )
    parser.add_argument("--folder", type=Path, help="where the files are written (default: /tmp)")
    arguments = parser.parse_args(argv)
    name, num_rows = arguments.encoder, arguments.rows
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        table = _plan(name, num_rows)
        start = time.perf_counter()
        manifest = write_set(Path(root) / name, encoder_spec(name), num_rows, arguments.format)
        seconds = time.perf_counter() - start
        table += _write_index(Path(root) / INDEX, manifest)
        table += _sizes(Path(root) / name, manifest, seconds)
        print_table(f"{name}, {num_rows:,} pictures: to plan and to write", _COLUMNS, table)
        table = _read(Path(root) / name, manifest, arguments.check)
        print_table(f"{name}, {num_rows:,} pictures: to open and to sample", _COLUMNS, table)


def _plan(name: str, num_rows: int) -> list[_Row]:
    planned = min(num_rows, _MAX_IN_MEMORY)
    found = _in_new_process("scale_plan", name, planned)
    scale = num_rows / planned
    how = "" if scale == 1 else f"computed from {planned:,}"
    scanned, both = found["scanned_mib"] * 2**20, found["planned_mib"] * 2**20
    return [
        _time("plan_extraction", found["seconds"] * scale, num_rows, how),
        _space("the scan's rows in memory, before", scanned * scale, num_rows, how),
        _space("and the plan", (both - scanned) * scale, num_rows, how),
        ("what a process is sent", "", f"{found['task_nbytes']:,.0f} B", "pickled"),
    ]


def _write_index(path: Path, manifest: Manifest) -> list[_Row]:
    written = min(manifest.rows, _MAX_IN_MEMORY)
    part = index_part(manifest.spec, manifest.plan, 0, written)
    start = time.perf_counter()
    write_parquet(path, part)
    seconds = (time.perf_counter() - start) * manifest.rows / written
    how = "" if written == manifest.rows else f"computed from {written:,}"
    return [
        _time("writing index.parquet", seconds, manifest.rows, how),
        _space(
            "its table in memory",
            part.estimated_size() * manifest.rows / written,
            manifest.rows,
            how,
        ),
        _space("index.parquet", manifest.index_nbytes, manifest.rows, "64 of them are two digests"),
    ]


def _sizes(folder: Path, manifest: Manifest, seconds: float) -> list[_Row]:
    shards = manifest.shards
    features = sum(record.data_nbytes for record in shards)
    around = sum(record.file_nbytes for record in shards) - features
    stored = sum(512 * path.stat().st_blocks for path in folder.iterdir())
    size = f"{len(shards):,} of {manifest.plan.shard_size:,} pictures"
    return [
        _space("manifest.json", (folder / MANIFEST).stat().st_size, manifest.rows, size),
        _space("shards: features", features, manifest.rows, "holes, here"),
        _space("shards: what is around them", around, manifest.rows, ""),
        (f"simulated in {seconds:,.0f} s on", _show(stored), "", "disk"),
    ]


def _read(folder: Path, manifest: Manifest, check: str) -> list[_Row]:
    found = _in_new_process("scale_open", folder, check)
    num_rows, batches = manifest.rows, int(found["batches"])
    hashing = manifest.index_nbytes / _sha256_rate()
    copy = found["copy_median"]

    def gather(label: str, seconds: float, beside: str) -> _Row:
        questions = num_rows / batches if num_rows < 64 * batches else 64
        return (label, f"{seconds * 1e3:,.2f} ms", f"{seconds / questions * 1e6:,.1f} us", beside)

    maps = f"{len(manifest.shards):,} shards; limit {_MAX_MAPS.read_text().strip()}"
    copied = f"copying as much: {copy * 1e3:.2f} ms"
    return [
        _time("open_features", found["open"], num_rows, f"sha256 of the index: {hashing:.2f} s"),
        _space("memory while it opens", found["open_nbytes"], num_rows, ""),
        _space("memory when it is open", found["held_nbytes"], num_rows, "forks share it"),
        _space("pickled for a spawned process", found["pickled_nbytes"], num_rows, ""),
        _time(
            "order of an epoch", found["draw_first"], num_rows, "RandomBatches, to its first batch"
        ),
        gather("ids of a batch of 64", found["draw"], ""),
        gather("first gather of 64", found["first_first"], f"check={check}, opens shards"),
        gather(f"first {batches:,} batches, mean", found["first_all"] / batches, copied),
        gather("the same again, median", found["again_median"], copied),
        gather("finding the rows, in it", found["find_median"], ""),
        ("memory maps", f"{found['maps']:,.0f}", "", maps),
    ]


def _in_new_process(module: str, *arguments: object) -> dict[str, float]:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _sha256_rate() -> float:
    """Bytes per second, in memory."""
    block = bytes(2**26)
    start = time.perf_counter()
    hashlib.sha256(block)
    return len(block) / (time.perf_counter() - start)


def _time(label: str, seconds: float, num_rows: int, beside: str) -> _Row:
    return label, f"{seconds:,.2f} s", f"{seconds / num_rows * 1e6:.2f} us", beside


def _space(label: str, nbytes: float, num_rows: int, beside: str) -> _Row:
    return label, _show(nbytes), f"{nbytes / num_rows:,.1f} B", beside


def _show(nbytes: float) -> str:
    return f"{nbytes / 1e9:,.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.2f} MB"


if __name__ == "__main__":
    main()
