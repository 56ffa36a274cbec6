"""Progress of long work on the terminal; silent where stderr is a file or a pipe."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

__all__ = ["progress_bar", "progress_columns"]


def progress_columns() -> Progress:
    """A bar with description, count, time left and a free text column, on stderr."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(
    title: str, total: int, *, shown: bool = True
) -> Iterator[Callable[[int, int], None]]:
    """Show progress while the block runs.

    Args:
        title: What is going on.
        total: How many items there are.
        shown: False shows nothing.

    Yields:
        A function to call with (done, all).
    """
    columns = progress_columns()
    columns.disable |= not shown
    with columns as progress:
        task = progress.add_task(title, total=total, note="")
        yield lambda done, _: progress.update(task, completed=done)
