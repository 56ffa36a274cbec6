"""A bar in Prefect's web interface that follows work that counts something."""

import re
import time
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

__all__ = ["WorkProgress", "artifact_name"]

_SECONDS_BETWEEN_UPDATES = 2.0


def artifact_name(*parts: str) -> str:
    """Key of an artifact: lowercase letters, digits and single dashes, which is what Prefect takes.

    Args:
        *parts: Texts that name it.
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class WorkProgress:
    """Called as work gets on, in the task's own thread; the bar is made at the first call.

    Args:
        key: Of the artifact.
        unit: What is counted, in the plural.
    """

    def __init__(self, key: str, unit: str) -> None:
        self._key = key
        self._unit = unit
        self._artifact: UUID | None = None
        self._updated = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        """Update the bar, every two seconds and at the end; without a total it only counts."""
        percent = 100.0 * done / total if total else 0.0
        of_all = f" of {total:,}" if total is not None else ""
        text = f"{done:,}{of_all} {self._unit}"
        now = time.monotonic()
        if self._artifact is None:
            made = create_progress_artifact(progress=percent, key=self._key, description=text)
            self._artifact = cast(UUID, made)  # a coroutine only where there is an event loop
        elif now - self._updated >= _SECONDS_BETWEEN_UPDATES or done == total:
            update_progress_artifact(self._artifact, percent, description=text)
        else:
            return
        self._updated = now
