"""How flows and tasks end when something goes wrong."""

from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Failed

__all__ = ["fail", "is_io_error"]


def is_io_error(_task: Any, _run: TaskRun, state: State[Any]) -> bool:
    """For ``retry_condition_fn``: another try may help after an I/O error, and only then."""
    return isinstance(state.result(raise_on_failure=False), OSError)


def fail(error: Exception) -> State[Any]:
    """End the run by an error that explains itself; a flow that is called raises it.

    Its traceback is in the log of the task already; without it the explanation stands last.
    """
    get_run_logger().error("%s", error)
    return Failed(message=str(error), data=error.with_traceback(None))
