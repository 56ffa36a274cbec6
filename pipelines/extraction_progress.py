"""The progress bar of one feature set, which shards of several threads or processes move."""

import threading

from pipelines.page import artifact_key
from pipelines.work_progress import WorkProgress

__all__ = ["ExtractionProgress"]


class ExtractionProgress:
    """Says how many pictures are done, how many a second, and how long the rest takes.

    Args:
        folder_name: Of the feature set.
        done: Pictures of shards that were there already.
        total: Pictures of all shards.
    """

    def __init__(self, folder_name: str, done: int, total: int) -> None:
        self._done = done
        self._total = total
        self._of_shard: dict[str, int] = {}
        self._lock = threading.Lock()
        self._bar = WorkProgress(
            artifact_key("features", folder_name, "progress"), "pictures", unit_of_rate="pictures"
        )
        self._bar(done, total)

    def advance(self, file: str, done: int) -> None:
        """Move the bar; it is updated every two seconds at most, and when all is done.

        Args:
            file: The shard.
            done: Its pictures that are done: fewer than before if it is made again.
        """
        with self._lock:
            self._done += done - self._of_shard.get(file, 0)
            self._of_shard[file] = done
            self._bar(self._done, self._total)

    def close(self) -> None:
        """Write the last state, and how fast it was in all."""
        with self._lock:
            self._bar.close()
