"""A bar in Prefect's web interface that follows work that counts something."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from pipelines.quantities import count_text, duration_text, rate_text

__all__ = ["WorkProgress"]

_SECONDS_BETWEEN_UPDATES = 2.0
_RATE_SECONDS = 60.0
_RATE_REPORTS = 8
"""The rate is that of the last minute, or of the last reports where they are rarer."""


class WorkProgress:
    """Called as work gets on; the bar is made at the first call.

    A thread of its own tells the server, so that work never waits for it. A server that does not
    answer is no reason to stop the work: the bar stands still then, which the log of the run says.

    Args:
        key: Of the artifact.
        unit: What is counted, in the plural.
        show: Writes a number of these.
        unit_of_rate: What is counted, in ``12.3 pictures/s``; empty where `show` writes a unit.
        shows_rate: Whether a rate and the time left say something: units take equally long.
    """

    def __init__(
        self,
        key: str,
        unit: str,
        *,
        show: Callable[[float], str] = count_text,
        unit_of_rate: str = "",
        shows_rate: bool = True,
    ) -> None:
        self._key = key
        self._unit = unit
        self._show = show
        self._unit_of_rate = unit_of_rate
        self._shows_rate = shows_rate
        self._artifact: UUID | None = None
        self._started = self._updated = 0.0
        self._first = self._done = 0
        self._total: int | None = None
        self._reports: deque[tuple[float, int]] = deque()
        self._logger = get_run_logger()
        self._is_answered = True
        self._sender = ThreadPoolExecutor(1, "progress")
        self._lock = threading.Lock()
        self._latest: tuple[float, str] | None = None
        self._is_sending = False

    def __call__(self, done: int, total: int | None) -> None:
        """Update the bar, every two seconds and at the end; without a total it only counts."""
        now = time.monotonic()
        self._done, self._total = done, total
        self._reports.append((now, done))
        while len(self._reports) > _RATE_REPORTS and self._reports[1][0] < now - _RATE_SECONDS:
            self._reports.popleft()
        if self._artifact is None:
            self._started, self._first = now, done
            made = create_progress_artifact(
                progress=self._percent(), key=self._key, description=self._counted()
            )
            self._artifact = cast(UUID, made)  # a coroutine only where there is an event loop
        elif now - self._updated >= _SECONDS_BETWEEN_UPDATES or done == total:
            self._update(f"{self._counted()}{self._outlook()}")
        else:
            return
        self._updated = now

    def close(self) -> None:
        """Write the last state, and how fast it was in all; waits until that is done."""
        if self._artifact is not None:
            self._say_how_fast()
        self._sender.shutdown()

    def _say_how_fast(self) -> None:
        made, seconds = self._done - self._first, time.monotonic() - self._started
        if made > 0 and seconds > 0:
            speed = f" in {duration_text(seconds)}"
            if self._shows_rate:
                speed += f" ({self._rate_text(made / seconds)})"
            self._update(f"{self._counted()}; {self._show(made)} of them now{speed}")
        else:
            self._update(f"{self._counted()}; none of them now")

    def _update(self, text: str) -> None:
        """Let the sender write this next; what it has not begun to write is left out."""
        with self._lock:
            self._latest = self._percent(), text
            if self._is_sending:
                return
            self._is_sending = True
        self._sender.submit(copy_context().run, self._send)

    def _send(self) -> None:
        while True:
            with self._lock:
                if self._latest is None:
                    self._is_sending = False
                    return
                (percent, text), self._latest = self._latest, None
            self._write(percent, text)

    def _write(self, percent: float, text: str) -> None:
        assert self._artifact is not None
        try:
            update_progress_artifact(self._artifact, percent, description=text)
        except Exception as error:  # nobody looks at the sender's future; the log is looked at
            if self._is_answered:
                self._logger.warning(
                    "the progress bar stands still, Prefect's server can't be told: %s: %s; "
                    "the work goes on",
                    type(error).__name__,
                    error,
                )
            self._is_answered = False
        else:
            self._is_answered = True

    def _percent(self) -> float:
        if self._total is None:
            return 0.0
        return 100.0 * self._done / self._total if self._total else 100.0

    def _counted(self) -> str:
        of_all = "" if self._total is None else f" of {self._show(self._total)}"
        return f"{self._show(self._done)}{of_all} {self._unit}"

    def _outlook(self) -> str:
        (start, first), (end, last) = self._reports[0], self._reports[-1]
        if not self._shows_rate or last <= first or end <= start:
            return ""
        rate = (last - first) / (end - start)
        text = f"; {self._rate_text(rate)}"
        if self._total is None or last >= self._total:
            return text
        return f"{text}, {duration_text((self._total - last) / rate)} left"

    def _rate_text(self, per_second: float) -> str:
        if self._unit_of_rate:
            return f"{rate_text(per_second)} {self._unit_of_rate}/s"
        return f"{self._show(per_second)}/s"
