"""The flow extract-features on threads, Dask and Ray: equal shards, wall time, overhead.

Each makes the same feature set from the drawn sample, on a temporary Prefect server: with the
encoder tiny in many small shards, which shows what a task costs, and with clip (random weights) in
few that take longer. Columns:

  start-up   from the start of the workers until the first one makes a shard: its process, imports
             and the encoder
  shards     what the shards took themselves, in all, divided by the workers
  overhead   of one shard: the rest of the time from the first to the last, divided by the shards
  end        until the workers are gone
  task       an empty task, after a first one in each worker
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

from prefect import flow, task
from prefect.testing.utilities import prefect_test_harness

from benchmarks.measuring import print_table
from mmcot_data import extraction
from mmcot_data.encoders import EncoderConfig
from mmcot_data.extraction import ExtractionConfig
from mmcot_data.sample import draw_sample
from pipelines import artifacts, extraction_run
from pipelines.extract_features import extract_features
from pipelines.shard_work import WorkedShard
from pipelines.task_runners import RunnerName, TaskWorkers, WorkersConfig, start_workers

__all__ = ["main"]

_NUM_EMPTY = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    encoder: str
    num_questions: int
    shard_size: int

    @property
    def weights(self) -> int | None:
        """Seed of the weights; the encoder tiny has its own."""
        return None if self.encoder == "tiny" else 0


_CASES = {
    "tiny": _Case(encoder="tiny", num_questions=600, shard_size=10),
    "clip": _Case(encoder="clip", num_questions=120, shard_size=16),
}


@dataclass(slots=True)
class _Stopwatch:
    """Watches the workers of one run."""

    begin: float = 0.0
    first: float = 0.0
    last: float = 0.0
    end: float = 0.0
    shards: Mapping[int, WorkedShard] | None = None

    @contextmanager
    def start_workers(self, config: WorkersConfig) -> Iterator[TaskWorkers]:
        self.begin = time.perf_counter()
        with start_workers(config) as workers:
            yield workers
        self.end = time.perf_counter()

    def outcome(self, future: Any) -> Any:
        outcome = _OUTCOME(future)
        if not self.first:
            assert isinstance(outcome, WorkedShard), outcome
            self.first = time.perf_counter() - outcome.seconds
        self.last = time.perf_counter()
        return outcome

    def publish(self, plan: Any, shards: Mapping[int, WorkedShard], failed: Any) -> None:
        self.shards = shards
        _PUBLISH(plan, shards, failed)


_PUBLISH, _OUTCOME = artifacts.publish_shards, extraction_run._outcome


def main(argv: Sequence[str] | None = None) -> None:
    """Run the flow with each runner, and print a table for each encoder."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runners",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--encoder", nargs="+", choices=_CASES, default=list(_CASES))
    parser.add_argument(
        "--runner", nargs="+", choices=get_args(RunnerName), default=list(get_args(RunnerName))
    )
    parser.add_argument("--workers", type=int, default=2, help="of Dask and Ray (default: 2)")
    arguments = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory() as folder,
        prefect_test_harness(server_startup_timeout=120),
    ):
        for name in arguments.encoder:
            _compare(_CASES[name], arguments.runner, arguments.workers, Path(folder) / name)


def _compare(case: _Case, runners: Sequence[RunnerName], workers: int, folder: Path) -> None:
    data = folder / "data"
    draw_sample(data, num_questions=case.num_questions, num_workers=1)
    start = time.perf_counter()
    alone = extraction.extract_features(
        ExtractionConfig(
            data=data,
            out=folder / "alone",
            encoder=EncoderConfig(name=case.encoder, random_weights=case.weights),
            shard_size=case.shard_size,
        )
    )
    seconds = time.perf_counter() - start
    rows = [["without Prefect", "", f"{seconds:.1f} s", *[""] * 5]]
    expected = _digests(folder / "alone" / case.encoder)
    for runner in runners:
        config = WorkersConfig(runner=runner, num_workers=None if runner == "threads" else workers)
        rows.append(_measure(case, config, data, folder / runner, expected))
    print_table(
        f"{case.encoder}: {alone.num_distinct} pictures in {alone.num_shards} shards",
        ["runner", "equal shards", "wall", "start-up", "shards", "overhead", "end", "task"],
        rows,
    )


def _measure(
    case: _Case, config: WorkersConfig, data: Path, out: Path, expected: Mapping[str, str]
) -> list[str]:
    watch = _Stopwatch()
    with (
        patch.object(extraction_run, "start_workers", watch.start_workers),
        patch.object(extraction_run, "_outcome", watch.outcome),
        patch.object(artifacts, "publish_shards", watch.publish),
    ):
        extract_features(
            encoder=case.encoder,
            random_weights=case.weights,
            data=data,
            out=str(out),
            shard_size=case.shard_size,
            runner=config.runner,
            num_workers=config.num_workers,
        )
    assert watch.shards is not None
    workers = config.num_workers or 1
    shards = sum(shard.seconds for shard in watch.shards.values()) / workers
    wall, startup = watch.end - watch.begin, watch.first - watch.begin
    overhead = (watch.last - watch.first - shards) / len(watch.shards)
    return [
        f"{config.runner} x{workers}",
        "yes" if _digests(out / case.encoder) == expected else "NO",
        f"{wall:.1f} s",
        f"{startup:.1f} s",
        f"{shards:.1f} s",
        f"{1000 * overhead:.0f} ms",
        f"{watch.end - watch.last:.1f} s",
        f"{1000 * _run_empty(config):.1f} ms",
    ]


@task(persist_result=False)
def _empty(number: int) -> int:
    return number


@flow(name="empty-tasks", persist_result=False)
def _run_empty(config: WorkersConfig) -> float:
    with start_workers(config) as workers:
        for count in (4 * (config.num_workers or 1), _NUM_EMPTY):
            start = time.perf_counter()
            futures = [workers.runner.submit(_empty, {"number": n}) for n in range(count)]
            for future in futures:
                future.result()
        return (time.perf_counter() - start) / _NUM_EMPTY


def _digests(folder: Path) -> dict[str, str]:
    shards = sorted(folder.glob("[0-9]*.h5"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}


if __name__ == "__main__":
    main()
