"""What the subcommands share: how they are added, and their progress bar."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["Subcommands", "add_subcommand", "local_path", "progress_bar"]

Subcommands = Any
"""What ``ArgumentParser.add_subparsers`` returns; argparse has no public name for it."""


def add_subcommand(
    commands: Subcommands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    examples: str,
) -> argparse.ArgumentParser:
    """Add a subcommand whose arguments are run by ``run``, and whose help ends with examples.

    The arguments then hold ``run``, and ``fail``: a function that ends the command as bad usage.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, fail=parser.error)
    return parser


def local_path(text: str) -> Path:
    """For ``type=``: a path to write to, which can't be a URL.

    Raises:
        argparse.ArgumentTypeError: If it is one.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is a URL, expected a local path to write to")
    return Path(text)


@contextmanager
def progress_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr; yields a function to call with the number done and that of all.

    What is done at the first call counts as done before, not as speed.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _SpeedColumn(unit),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True))
    tasks: list[TaskID] = []

    def report(done: int, total: int) -> None:
        if not tasks:
            progress.start()
            tasks.append(progress.add_task(title, total=total, completed=done))
        progress.update(tasks[0], completed=done)

    try:
        yield report
    finally:
        if tasks:
            progress.stop()


class _SpeedColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        if task.finished or task.speed is None:
            return Text("")
        return Text(f"{task.speed:.1f} {self.unit}/s")
