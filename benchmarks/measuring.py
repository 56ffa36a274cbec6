"""What the benchmarks share: cold files, the private memory of a process, and tables."""

import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

__all__ = ["AnonymousMemory", "evict", "print_table", "read_sequentially"]

_BLOCK_NBYTES = 4 * 2**20


class AnonymousMemory:
    """Peak of the process's private memory above what it was, in MiB: mapped files do not count."""

    def __enter__(self) -> "AnonymousMemory":
        self._start = self._peak = _anonymous_kib()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak_mib(self) -> float:
        """So far."""
        self._peak = max(self._peak, _anonymous_kib())
        return (self._peak - self._start) / 1024

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self._peak = max(self._peak, _anonymous_kib())


def _anonymous_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon: this benchmark needs Linux")


def evict(paths: Iterable[Path]) -> None:
    """Drop files from the system's cache; whoever has them mapped must have let go before."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_sequentially(paths: Iterable[Path]) -> float:
    """Bytes per second of reading files from start to end in blocks of 4 MiB."""
    block = bytearray(_BLOCK_NBYTES)
    total = 0
    start = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(block):
                total += count
    return total / (time.perf_counter() - start)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=number == 0)
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
