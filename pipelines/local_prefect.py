"""A Prefect of one's own for as long as a block: server, work pool, deployments and worker.

    with local_prefect(Path("demo/prefect")) as prefect:
        prefect.run("deployment", "run", "extract-features", "--watch", "-p", "encoder=tiny")

The demo and the tests use it; docs/prefect.md has the same steps to be typed.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Literal

from mmcot_data.errors import MmcotError

__all__ = ["LocalPrefect", "LocalPrefectError", "Part", "local_prefect"]

Part = Literal["server", "worker"]

_CHECKOUT = Path(__file__).parents[1]
_HOST = "127.0.0.1"
_POOL = "mmcot"
_START_SECONDS = 180.0
_END_SECONDS = 30.0
_NUM_SHOWN = 20


class LocalPrefectError(MmcotError):
    """The server did not start, or a command failed."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LocalPrefect:
    """A running server and its worker."""

    url: str
    """Of the web interface, such as ``http://127.0.0.1:4200``."""
    home: Path
    """Holds the server's database, server.log, worker.log and commands.log."""
    environment: Mapping[str, str]
    """In which the commands of Prefect talk to this server."""
    _processes: dict[Part, subprocess.Popen[bytes]] = field(
        default_factory=dict, init=False, repr=False
    )

    def pid(self, part: Part) -> int:
        """Number of the server's or the worker's process."""
        return self._processes[part].pid

    def start(self, part: Part) -> None:
        """Start the server or the worker, again if it was started before, and wait until it works.

        The server keeps its address; the worker makes the work pool if there is none.

        Raises:
            LocalPrefectError: If it ends or does not work in time; shows the end of its log.
        """
        if part in self._processes:
            _end(self._processes[part])
        port = self.url.rpartition(":")[2]
        arguments, works = {
            "server": (("start", "--host", _HOST, "--port", port), "health"),
            "worker": (("start", "--pool", _POOL, "--type", "process"), f"work_pools/{_POOL}"),
        }[part]
        log = self.home / f"{part}.log"
        with log.open("ab") as output:
            self._processes[part] = _start(self.environment, (part, *arguments), output.fileno())
        _wait_until_answered(f"{self.url}/api/{works}", self._processes[part], log)

    def end(self) -> None:
        """End the worker with its runs, then the server."""
        for part in reversed(self._processes):
            _end(self._processes[part])

    def run(self, *arguments: str, on_line: Callable[[str], object] | None = None) -> str:
        """Run ``prefect ARGUMENTS`` in the checkout and wait for its end.

        Args:
            *arguments: What one would type after ``prefect``.
            on_line: Called with each line of the output when it comes.

        Returns:
            The output, stderr included.

        Raises:
            LocalPrefectError: If the exit code is not 0; shows the end of the output.
        """
        typed = f"prefect {' '.join(arguments)}"
        lines: list[str] = []
        with (self.home / "commands.log").open("a", encoding="utf-8") as log:
            log.write(f"$ {typed}\n")
            process = _start(self.environment, arguments, subprocess.PIPE)
            try:
                assert process.stdout is not None
                for raw in process.stdout:
                    line = raw.decode(errors="replace").rstrip()
                    lines.append(line)
                    log.write(f"{line}\n")
                    if on_line is not None:
                        on_line(line)
                process.wait()
            finally:
                _end(process)
        if process.returncode != 0:
            raise LocalPrefectError(
                f"`{typed}` ended with exit code {process.returncode}; the end of its output:\n"
                + "\n".join(lines[-_NUM_SHOWN:])
                + f"\nThe logs of server and worker are in {self.home}."
            )
        return "\n".join(lines)


@contextmanager
def local_prefect(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[LocalPrefect]:
    """Start a server on a free port and a worker, with its work pool; deploy flows.yaml.

    However the block ends, by an exception, Ctrl-C, SIGTERM or SIGHUP too, everything that was
    started has ended after it.

    Args:
        home: Folder for the database and the logs; not to be shared by two blocks at a time. Those
            of an earlier block are replaced: a run that was killed then would still hold the place
            of its deployment.
        settings: Environment variables of all that is started, beside those of this process.

    Raises:
        LocalPrefectError: If the server does not start, or a command fails.
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    for path in [*home.glob("prefect.db*"), *home.glob("*.log")]:
        path.unlink()
    shutil.rmtree(home / "concurrency_leases", ignore_errors=True)
    url = f"http://{_HOST}:{_free_port()}"
    environment = {**_environment(home, f"{url}/api"), **(settings or {})}
    prefect = LocalPrefect(url=url, home=home, environment=environment)
    ending = threading.Event()
    with _signals_raise(ending):
        try:
            prefect.start("server")
            prefect.start("worker")
            prefect.run("deploy", "--all")
            yield prefect
        finally:
            ending.set()
            prefect.end()


def _environment(home: Path, api_url: str) -> dict[str, str]:
    """This process's environment without its own settings of Prefect; pyproject.toml's apply."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    no_proxy = [value for name in ("no_proxy", "NO_PROXY") if (value := kept.get(name))]
    return kept | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api_url,
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_CLI_WRAP_LINES": "false",
        "PYTHONUNBUFFERED": "1",
        "no_proxy": ",".join([*no_proxy[:1], _HOST]),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _start(
    environment: Mapping[str, str], arguments: tuple[str, ...], output: int
) -> subprocess.Popen[bytes]:
    """Start a command of Prefect in a session of its own, which Ctrl-C does not reach."""
    return subprocess.Popen(
        [Path(sys.executable).with_name("prefect"), *arguments],
        cwd=_CHECKOUT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait_until_answered(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    what = "did not start" if process.poll() is None else f"ended with {process.returncode}"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_NUM_SHOWN:]
    raise LocalPrefectError("\n".join([f"Prefect's {log.stem} {what}; the end of {log}:", *tail]))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process; a worker ends its flow runs, which are in sessions of their own."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def _signals_raise(ending: threading.Event) -> Iterator[None]:
    """Turn the signals that end a program into exceptions, until ``ending`` is set.

    A signal that is ignored stays without effect here. But it has a handler meanwhile: processes
    inherit ignored signals, and a worker that ignores SIGINT cannot end its flow runs.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, _frame: FrameType | None) -> None:
        if ending.is_set() or before[signal.Signals(number)] is signal.SIG_IGN:
            return
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    try:
        for number in numbers:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
