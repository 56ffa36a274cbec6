"""How flows and tasks end when something goes wrong."""

import re
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed

from mmcot_data.errors import ExtractionError

__all__ = ["check_failed", "fail", "is_io_error"]

_MAX_LISTED = 20  # causes of failures
_MAX_NUMBERS = 10  # of shards that failed for one cause
_MAX_CHARS = 1000  # of a cause
_ANSI = re.compile(r"\x1b\[[0-9;]*m")  # Ray colours its errors


def is_io_error(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """For ``retry_condition_fn``: another try may help after an I/O error, and only then."""
    return isinstance(state.result(raise_on_failure=False), OSError)


def fail(error: Exception) -> State[Any]:
    """End the run by an error that explains itself; a flow that is called raises it.

    Its traceback is in the log of the task already; without it the explanation stands last.
    """
    get_run_logger().error("%s", error)
    return Failed(message=str(error), data=error.with_traceback(None))


def check_failed(failed: Mapping[int, BaseException], num_tasks: int) -> None:
    """Raise if shards failed, when all the others are made.

    Args:
        failed: Why, by the shard's number; those of one cause share a line.
        num_tasks: Shards that were to be made.

    Raises:
        ExtractionError: Lists them.
    """
    if not failed:
        return
    causes: dict[str, list[int]] = {}
    for number, error in sorted(failed.items()):
        text = f"{type(error).__name__}: {_ANSI.sub('', str(error))}"
        causes.setdefault(shorten(text, _MAX_CHARS), []).append(number)
    lines = [f"  {_numbers(numbers)}: {cause}" for cause, numbers in causes.items()]
    if len(lines) > _MAX_LISTED:
        lines[_MAX_LISTED:] = [f"  and {len(lines) - _MAX_LISTED} other causes"]
    raise ExtractionError(
        f"{len(failed)} of {num_tasks} shards failed:\n"
        + "\n".join(lines)
        + "\nThe others are complete; a new run makes only those that are missing."
    )


def _numbers(numbers: Sequence[int]) -> str:
    """``shard 3``, ``shards 3, 4, 9``, ``shards 3, 4, 9 and 17 more``."""
    first = ", ".join(map(str, numbers[:_MAX_NUMBERS]))
    more = f" and {len(numbers) - _MAX_NUMBERS} more" if len(numbers) > _MAX_NUMBERS else ""
    return f"shard{'s' if len(numbers) > 1 else ''} {first}{more}"
