"""One measurement of ``benchmarks.store`` that needs a process of its own."""

import sys
import time
from pathlib import Path

from benchmarks.measuring import AnonymousMemory
from benchmarks.store_layouts import LAYOUTS, Rows
from mmcot_data.shards import open_features

__all__ = ["main"]


def main() -> None:
    """Arguments: task, number of the layout, folder, P, D, rows, rows in a shard."""
    task, number, folder, *sizes = sys.argv[1:]
    P, D, num_rows, shard_size = map(int, sizes)
    rows = Rows((P, D), num_rows, shard_size)
    if task == "epoch":
        print(_measure_memory(int(number), Path(folder), rows))
    else:
        print(_measure_opening(Path(folder), rows, touch=task == "touch"))


def _measure_memory(number: int, folder: Path, rows: Rows) -> str:
    layout = LAYOUTS[number]
    batches = rows.batches(0, 32)
    if number >= len(LAYOUTS) - 2:
        batches = batches[:2]
    _import_what_is_needed(layout.name)
    with AnonymousMemory() as memory:
        read = layout.open(folder, rows)
        opened = memory.peak_mib
        for batch in batches:
            read(batch)
        return f"{opened:,.0f}, {memory.peak_mib:,.0f}"


def _import_what_is_needed(name: str) -> None:
    if name.startswith("HF"):
        import datasets  # noqa: F401
    if name.startswith(("HF", "Multimodal")):
        import torch
        import transformers.utils  # noqa: F401

        torch.zeros(1)


def _measure_opening(folder: Path, rows: Rows, *, touch: bool) -> str:
    start = time.process_time()
    features = open_features(folder)
    if touch:
        for row in range(0, rows.num_rows, rows.shard_size):
            features[str(row)]
    return f"{time.process_time() - start:.3f}"


if __name__ == "__main__":
    main()
