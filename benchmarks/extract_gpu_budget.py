"""The time that a benchmark may take, and the lines of JSON that it writes."""

import json
import time
from typing import Any, TextIO

__all__ = ["Budget"]


class Budget:
    """What is measured is told at once, so that a run that is cut short has told something.

    Args:
        seconds: That may pass from now on.
        file: Gets the lines besides stdout.
    """

    def __init__(self, seconds: float, file: TextIO | None) -> None:
        self._end = time.monotonic() + seconds
        self._file = file

    def emit(self, kind: str, **values: Any) -> None:
        """Write one line of JSON."""
        line = json.dumps({"kind": kind, **values})
        print(line, flush=True)
        if self._file is not None:
            print(line, file=self._file, flush=True)

    def allows(self, seconds: float, what: str, **values: Any) -> bool:
        """Whether something of this length still fits; if not, a line says that it is skipped."""
        left = self._end - time.monotonic()
        if seconds > left:
            self.emit("skipped", what=what, **values, needs_s=round(seconds), left_s=round(left))
        return seconds <= left
