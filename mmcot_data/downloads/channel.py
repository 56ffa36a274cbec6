"""What the threads that fetch and the thread that waits for them tell each other.

Everything that a caller passes in, such as a progress bar, is called in the caller's thread.
"""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mmcot_data.downloads.remote_file import FetchedFile

__all__ = ["Channel", "Event", "StoppedError"]

Event = str | tuple[int, FetchedFile] | BaseException
"""A notice, a file that is there and its number, or why a thread ended early."""


class StoppedError(Exception):
    """The caller wants no more."""


class Channel:
    """Counters of bytes, a queue of events, and the wish to stop.

    Args:
        done: Bytes that are there, by number of the file.
        totals: Sizes by number of the file; None where one is not known.
    """

    def __init__(self, done: Sequence[int], totals: Sequence[int | None]) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._done = list(done)
        self._totals = list(totals)
        self._num_unknown = self._totals.count(None)
        self._sum_done = sum(self._done)
        self._sum_totals = sum(total or 0 for total in self._totals)
        self._missing = sum(
            total - done
            for done, total in zip(self._done, self._totals, strict=True)
            if total is not None
        )
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._waiting: set[int] = set()

    def say(self, text: str) -> None:
        """Give the caller a notice."""
        self.events.put(text)

    def set_done(self, number: int, nbytes: int) -> None:
        """Tell how many bytes of a file are there."""
        with self._lock:
            added = nbytes - self._done[number]
            self._done[number] = nbytes
            self._sum_done += added
            if self._totals[number] is not None:
                self._missing -= added

    def set_total(self, number: int, nbytes: int) -> None:
        """Tell how large a file is."""
        with self._lock:
            old = self._totals[number]
            self._totals[number] = nbytes
            if old is None:
                self._num_unknown -= 1
                self._missing += nbytes - self._done[number]
            else:
                self._missing += nbytes - old
            self._sum_totals += nbytes - (old or 0)

    def progress(self) -> tuple[int, int | None]:
        """Bytes of all files, those that are there and those there will be, if that is known."""
        with self._lock:
            return self._sum_done, None if self._num_unknown else self._sum_totals

    @property
    def missing(self) -> int:
        """Bytes that are still to come, of the files whose size is known."""
        return self._missing

    def check(self) -> None:
        """Raise if the caller wants no more.

        Raises:
            StoppedError: If so.
        """
        if self._stop.is_set():
            raise StoppedError

    def pause(self, seconds: float) -> None:
        """Wait, but not if the caller wants no more.

        Raises:
            StoppedError: If so.
        """
        self._stop.wait(seconds)
        self.check()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """For a call that waits for the network, and touches no file.

        Raises:
            StoppedError: At the end, if the caller may have gone on without it.
        """
        self.check()
        me = threading.get_ident()
        self._waiting.add(me)
        try:
            yield
        finally:
            self._waiting.discard(me)
            self.check()

    def stop(self, threads: Sequence[threading.Thread]) -> None:
        """Stop threads; when this returns they write nothing more.

        One that waits for a server is left to itself: there is no way to wake it, and it ends
        when the server answers or its time is up.
        """
        self._stop.set()
        for thread in threads:
            while thread.is_alive() and thread.ident not in self._waiting:
                thread.join(0.01)
