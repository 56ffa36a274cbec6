"""Runs of ``extract-features`` that end in the middle, and what the next run makes of them.

    python -m benchmarks.kills

starts a server and a worker, lets a run extract the drawn sample undisturbed, and then ends one run
after the other when it has made some shards: kill -9 of its process, of the worker, of both at
once (what a power cut does), of the server, which is started again, and a cancellation, as by
`prefect flow-run cancel`. Another run waits for its turn meanwhile, as a queue does overnight.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Scheduled

from benchmarks.measuring import print_table
from mmcot_data.files import file_sha256
from mmcot_data.sample import draw_sample
from pipelines.local_prefect import LocalPrefect, local_prefect

__all__ = ["KILLED", "Killed", "Outcome", "Overnight", "main", "overnight"]

Killed = Literal["run", "worker", "worker and run", "server", "cancel"]
KILLED: tuple[Killed, ...] = get_args(Killed)

_DEPLOYMENT = "extract-features/extract-features"
_PARAMETERS = {"encoder": "clip", "random_weights": 0, "shard_size": 16}
_NUM_QUESTIONS = 300
_AFTER_SHARDS = 3
_PATIENCE_SECONDS = 420.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a run that was ended, and of the run that waited for its place."""

    killed: Killed
    stopped_after: float
    """Seconds from the kill until the run's process had ended."""
    ended: str
    """Name of the state that the run ended in."""
    ended_after: float
    """Seconds from the kill until it did."""
    freed_after: float
    """Seconds from the kill until the waiting run had its place."""
    num_there: int
    """Complete shards when the run's process had ended."""
    num_made: int
    """Shards that the waiting run made."""
    num_shards: int
    next_ended: str
    is_equal: bool
    """Whether the files are then those of an undisturbed run, byte for byte, and no others."""
    half_files: tuple[str, ...]
    """What the run's process left beside whole files when it ended."""


class Overnight:
    """A server, a worker, and the files of an undisturbed run.

    Args:
        prefect: The server and the worker.
        client: Asks the server.
        data: A data set.
        folder: For the artifact roots.
    """

    def __init__(
        self, prefect: LocalPrefect, client: SyncPrefectClient, data: Path, folder: Path
    ) -> None:
        self._prefect = prefect
        self._client = client
        self._data = data
        self._folder = folder
        prefect.run("automation", "create", "--from-file", "pipelines/silent_runs.yaml")
        self._deployment = client.read_deployment_by_name(_DEPLOYMENT).id
        self._undisturbed = folder / "undisturbed"
        ended = self._end_of(self._start_run(self._undisturbed))
        assert ended.state_name == "Completed", ended.state

    def end_in_the_middle(self, killed: Killed, *, away: float = 20.0) -> Outcome:
        """End a run when it has made some shards, and let the next one finish its work.

        Args:
            killed: What is ended.
            away: Seconds until a server that was killed is started again.
        """
        out = self._folder / killed.replace(" ", "-")
        run = self._start_run(out)
        _wait_until(lambda: len(_shards(out)) >= _AFTER_SHARDS)
        waiting = self._start_run(out)
        process = int(self._client.read_flow_run(run).infrastructure_pid or "")
        start = time.time()
        self._end(killed, run, process, away)
        _wait_until(lambda: not Path(f"/proc/{process}").exists())
        stopped = time.time()
        there, half_files = _shards(out), _half_files(out)
        ended, next_ended = self._end_of(run), self._end_of(waiting)
        after = _shards(out)
        return Outcome(
            killed=killed,
            stopped_after=stopped - start,
            ended=str(ended.state_name),
            ended_after=_seconds(ended.end_time) - start,
            freed_after=self._place_since(waiting) - start,
            num_there=len(there),
            num_made=sum(there.get(file) != made for file, made in after.items()),
            num_shards=len(after),
            next_ended=str(next_ended.state_name),
            is_equal=_digests(out) == _digests(self._undisturbed),
            half_files=half_files,
        )

    def _end(self, killed: Killed, run: UUID, process: int, away: float) -> None:
        if killed == "cancel":
            self._client.set_flow_run_state(run, Cancelling())
        if killed in ("worker", "worker and run"):
            os.kill(self._prefect.pid("worker"), signal.SIGKILL)
        if killed in ("run", "worker and run"):
            os.kill(process, signal.SIGKILL)
        if killed == "server":
            os.kill(self._prefect.pid("server"), signal.SIGKILL)
            time.sleep(away)
            self._prefect.start("server")
        if killed in ("worker", "worker and run"):
            self._prefect.start("worker")

    def _start_run(self, out: Path) -> UUID:
        parameters = {**_PARAMETERS, "data": str(self._data), "out": str(out)}
        return self._client.create_flow_run_from_deployment(
            self._deployment, parameters=parameters, state=Scheduled()
        ).id

    def _end_of(self, run: UUID) -> FlowRun:
        """The run when it has ended."""
        _wait_until(lambda: self._client.read_flow_run(run).end_time is not None)
        return self._client.read_flow_run(run)

    def _place_since(self, run: UUID) -> float:
        """When a run got the place of its deployment: it is Pending from then on."""
        states = self._client.read_flow_run_states(run)
        return min(state.timestamp.timestamp() for state in states if state.is_pending())


@contextmanager
def overnight(folder: Path, *, query_seconds: float = 10.0) -> Iterator[Overnight]:
    """Draw the sample, start a server and a worker, and let a run end undisturbed.

    Args:
        folder: For all files.
        query_seconds: How often the worker asks for runs; Prefect's own default.
    """
    draw_sample(folder / "data", num_questions=_NUM_QUESTIONS)
    settings = {"PREFECT_WORKER_QUERY_SECONDS": str(query_seconds), "HF_HUB_OFFLINE": "1"}
    with (
        local_prefect(folder / "prefect", settings) as prefect,
        SyncPrefectClient(api=f"{prefect.url}/api") as client,
    ):
        yield Overnight(prefect, client, folder / "data", folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table; takes six minutes.

    Args:
        argv: Arguments without the command's name; None for those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument(
        "--killed", action="append", choices=KILLED, help="only this; may be repeated"
    )
    parser.add_argument(
        "--away", type=float, default=20.0, help="seconds that a killed server is away (20)"
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, overnight(Path(folder)) as session:
        outcomes = [
            session.end_in_the_middle(killed, away=arguments.away)
            for killed in arguments.killed or KILLED
        ]
    print_table(
        "Runs that were ended in the middle; seconds count from the kill",
        [
            "ended",
            "process ended",
            "run is",
            "after s",
            "place free after s",
            "shards there",
            "half files",
            "next made",
            "equal",
        ],
        [
            [
                outcome.killed,
                f"{outcome.stopped_after:.1f}",
                outcome.ended,
                f"{outcome.ended_after:.1f}",
                f"{outcome.freed_after:.1f}",
                f"{outcome.num_there} of {outcome.num_shards}",
                str(len(outcome.half_files)),
                f"{outcome.num_made}, {outcome.next_ended}",
                "yes" if outcome.is_equal else "NO",
            ]
            for outcome in outcomes
        ],
    )


def _shards(out: Path) -> dict[str, int]:
    """When each complete shard was made: a shard is complete when its record is there."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*/*-of-*.h5.json")}


def _half_files(out: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in out.rglob("*") if ".tmp" in path.name))


def _digests(out: Path) -> dict[str, str]:
    """Of all files but the lock, which names the process that held it."""
    return {
        str(path.relative_to(out)): file_sha256(path)
        for path in out.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def _seconds(timestamp: datetime | None) -> float:
    assert timestamp is not None, "the run has ended"
    return timestamp.timestamp()


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited for {_PATIENCE_SECONDS:.0f} s in vain")
        time.sleep(0.25)


if __name__ == "__main__":
    main()
