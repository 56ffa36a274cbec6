"""The hidden folder in which a data set is made, and the moment in which it takes its place.

``OUT/.download`` holds what is fetched and made until all of it is proved. Then the record is
written there, which decides that the data set is to be published: its files and folders are renamed
into ``OUT``, the record last, and the hidden folder goes. Interrupted at any moment, the same
request continues; another one is refused. Where the record is in ``OUT``, what the hidden folder
still has is of no use.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError
from mmcot_data.files import sync_folder, write_json
from mmcot_data.shards.lock import lock_folder

__all__ = [
    "RECORD",
    "describe_differences",
    "is_published",
    "needs_work",
    "open_workspace",
    "publish",
]

RECORD = "download.json"
_WORK = ".download"
_REQUEST = "request.json"
_LOCK = ".lock"
_OWN = (_LOCK, ".download.lock", "fetched.jsonl", _REQUEST)


@contextmanager
def open_workspace(out: Path, request: Mapping[str, Any]) -> Iterator[Path]:
    """Lock and give the working folder of a request.

    After an error it stays, for the next run; not if nothing has been fetched. It goes when the
    data set is published, by this process or, while this one waited, by another.

    Args:
        out: The folder that becomes the data set.
        request: What makes this download another one than others, as JSON can hold it.

    Raises:
        DataError: If ``out`` holds something else, or another request has been begun there.
        FolderLockedError: If another process works there.
    """
    work = out / _WORK
    is_new = not out.exists()
    _refuse_strangers(out, work)
    try:
        with lock_folder(work):
            try:
                if not is_published(out):
                    _check_request(work, request)
                yield work
            finally:
                if is_published(out) or not _has_files(work):
                    _remove(work)
    finally:
        if is_new and out.exists() and not any(out.iterdir()):
            out.rmdir()


def is_published(out: Path) -> bool:
    """Whether a data set is whole and in place."""
    return (out / RECORD).exists()


def needs_work(out: Path) -> bool:
    """Whether a data set is to be made, or the working folder of a finished one to be deleted."""
    return not is_published(out) or (out / _WORK).exists()


def publish(work: Path, out: Path, names: Iterable[str]) -> None:
    """Rename files and folders into place, the record last; those that are in place already stay.

    Args:
        work: The working folder, with the record.
        out: The folder that becomes the data set.
        names: Of files and folders, with forward slashes.
    """
    os.sync()
    for name in (*names, RECORD):
        target = out / name
        if (work / name).exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            (work / name).rename(target)
            sync_folder(target.parent)


def describe_differences(found: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """In which settings two requests differ, in words; empty if they do not."""
    return ", ".join(
        f"{name} is {found.get(name)!r}, asked for {value!r}"
        for name, value in asked.items()
        if found.get(name) != value
    )


def _refuse_strangers(out: Path, work: Path) -> None:
    if not out.exists() or (work / RECORD).exists() or is_published(out):
        return
    if not out.is_dir():
        raise DataError(f"{out} is a file, expected a folder to make")
    strangers = sorted(path.name for path in out.iterdir() if path.name != _WORK)
    if strangers:
        shown = ", ".join(strangers[:5]) + (", …" if len(strangers) > 5 else "")
        raise DataError(
            f"{out} holds {shown}, which no finished download has put there; name a folder that is "
            "new or empty"
        )


def _check_request(work: Path, request: Mapping[str, Any]) -> None:
    path = work / _REQUEST
    if not path.exists():
        write_json(path, dict(request))
        return
    try:
        begun = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}; delete {work} to begin anew") from error
    if difference := describe_differences(begun, request):
        raise DataError(
            f"another download has been begun in {work.parent}: {difference}; ask for the same "
            f"again, name another folder, or delete {work} to begin anew"
        )


def _remove(work: Path) -> None:
    """Delete the working folder, its lock last, so that no other process begins in what goes."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
    shutil.rmtree(work)


def _has_files(path: Path) -> bool:
    if path.is_dir():
        return any(_has_files(entry) for entry in path.iterdir())
    return path.name not in _OWN
