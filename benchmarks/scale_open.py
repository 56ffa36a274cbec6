"""Opening and sampling for ``benchmarks.scale``, in a process whose memory is all it uses."""

import gc
import json
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import AnonymousMemory
from mmcot_data.shards import FeatureSet, open_features
from mmcot_data.shards.torch import RandomBatches

__all__ = ["main"]

_BATCH = 64
_NUM_BATCHES = 1000
_COPIED_NBYTES = 256 * 2**20


def main() -> None:
    """Arguments: folder, what is checked; prints an object of JSON."""
    print(json.dumps(_open(Path(sys.argv[1]), sys.argv[2])))


def _open(folder: Path, check: Any) -> dict[str, float]:
    num_maps, anonymous = _num_maps(), _anonymous_nbytes()
    with AnonymousMemory() as memory:
        start = time.perf_counter()
        features = open_features(folder, check=check)
        found = {"open": time.perf_counter() - start, "open_nbytes": memory.peak_mib * 2**20}
    gc.collect()
    found["held_nbytes"] = _anonymous_nbytes() - anonymous
    found["pickled_nbytes"] = _pickled_nbytes(features)
    start = time.perf_counter()
    batches = iter(RandomBatches(features.question_ids, _BATCH))
    drawn = [next(batches)]
    found["draw_first"] = time.perf_counter() - start
    start = time.perf_counter()
    drawn += islice(batches, _NUM_BATCHES - 1)
    found["draw"] = (time.perf_counter() - start) / max(1, len(drawn) - 1)
    out_BPD = np.empty((_BATCH, *features.row_shape), features.spec.dtype)

    def gather(batch: Sequence[str]) -> object:
        return features.gather(batch, out_BPD[: len(batch)])

    def find(batch: Sequence[str]) -> object:
        return features.role_mask(batch)

    found |= _times("first", gather, drawn) | _times("again", gather, drawn)
    found |= _times("find", find, drawn)
    found |= _times("copy", _copier(features, out_BPD), drawn)
    return found | {"batches": len(drawn), "maps": _num_maps() - num_maps}


def _times(
    name: str, read: Callable[[Sequence[str]], object], batches: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Seconds of the first batch, of the median one, and of all."""
    seconds = []
    for batch in batches:
        start = time.perf_counter()
        read(batch)
        seconds.append(time.perf_counter() - start)
    return {
        f"{name}_first": seconds[0],
        f"{name}_median": statistics.median(seconds),
        f"{name}_all": sum(seconds),
    }


def _copier(
    features: FeatureSet, out_BPD: "np.ndarray[Any, Any]"
) -> Callable[[Sequence[str]], object]:
    """What a gather is beside: as many rows are copied from places in memory that are drawn."""
    num_rows = _COPIED_NBYTES // out_BPD[0].nbytes
    rows_NPD = np.ones((num_rows, *features.row_shape), out_BPD.dtype)
    random = np.random.default_rng(0)

    def copy(batch: Sequence[str]) -> object:
        rows = random.integers(0, num_rows, len(batch))
        return rows_NPD.take(rows, axis=0, out=out_BPD[: len(batch)], mode="clip")

    return copy


class _Counter:
    nbytes = 0

    def write(self, data: Any) -> None:
        self.nbytes += memoryview(data).nbytes


def _pickled_nbytes(value: object) -> int:
    counter = _Counter()
    pickle.dump(value, counter, pickle.HIGHEST_PROTOCOL)
    return counter.nbytes


def _num_maps() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


def _anonymous_nbytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


if __name__ == "__main__":
    main()
