"""Who writes: one writer at a time in a feature set's folder, or one at a time for each shard.

The operating system holds the locks (``flock``): each is free as soon as its process is gone,
however that ended, and on network file systems they hold between machines. The files themselves
mean nothing; who holds the lock is written in them.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from mmcot_data.errors import FolderLockedError

__all__ = [
    "Claim",
    "claim_owner",
    "claim_shard",
    "clear_claims",
    "describe_owner",
    "find_worker",
    "lock_folder",
    "present_worker",
    "remove_half_written",
]

_LOCK = ".lock"
_WORKER = ".worker-"
_CLAIM_SUFFIX = ".claim"

Claim = FileLock
"""A shard that this process makes; ``release()`` gives it up."""


@contextmanager
def lock_folder(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Exclude every other writer from a folder, which is made if it is absent.

    Args:
        folder: The feature set.
        wait: Seconds to wait for another writer; negative for as long as it takes.

    Raises:
        FolderLockedError: If another process, or another run in this process, holds the lock.
        OSError: If the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    try:
        with _file_lock(path, timeout=wait):
            yield
    except Timeout as error:
        raise FolderLockedError(
            f"{folder} is being written by {_read_owner(path)}; wait until it has finished, or "
            "choose another folder"
        ) from error


def claim_shard(folder: Path, file: str, wait: float = 0.0) -> Claim | None:
    """Claim a shard for this process, and delete what a killed process left of it.

    Args:
        folder: The feature set.
        file: Name of the shard.
        wait: Seconds to wait while another process makes it; negative for as long as it takes.

    Returns:
        The claim, which any thread may release; None if another process still makes the shard.

    Raises:
        OSError: If the file system has no locks.
    """
    lock = _file_lock(_claim_path(folder, file), timeout=wait)
    try:
        lock.acquire()
    except Timeout:
        return None
    remove_half_written(folder, file)
    return lock


def claim_owner(folder: Path, file: str) -> str:
    """Who makes a shard, for people: process, machine, since when."""
    return _read_owner(_claim_path(folder, file))


def remove_half_written(folder: Path, file: str = "") -> None:
    """Delete what a killed process left of a file; of every file if none is named."""
    for path in folder.glob(f".{file}*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def present_worker(folder: Path) -> Iterator[None]:
    """Let it be known that this process makes shards of a feature set."""
    path = folder / f"{_WORKER}{uuid4().hex}{_CLAIM_SUFFIX}"
    with _file_lock(path, timeout=0):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def find_worker(folder: Path) -> str | None:
    """Who makes shards of a feature set at this moment, for people; None if nobody does."""
    for path in folder.glob(f"{_WORKER}*{_CLAIM_SUFFIX}"):
        owner = _read_owner(path)
        if not _delete_unheld(path):
            return owner
    return None


def clear_claims(folder: Path) -> None:
    """Delete the files of claims that nobody holds."""
    for path in folder.glob(f".*{_CLAIM_SUFFIX}"):
        _delete_unheld(path)


def _delete_unheld(path: Path) -> bool:
    """Whether nobody held it. Whoever has opened the file meanwhile notices that it is gone."""
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return False
    path.unlink(missing_ok=True)
    lock.release()
    return True


def _file_lock(path: Path, timeout: float) -> FileLock:
    return FileLock(
        path,
        timeout=timeout,
        thread_local=False,
        on_acquired=_write_owner,
        fallback_to_soft=False,
    )


def _claim_path(folder: Path, file: str) -> Path:
    return folder / f".{file}{_CLAIM_SUFFIX}"


def describe_owner() -> str:
    """This process, for people: process, machine, since when."""
    return f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}"


def _write_owner(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.write(descriptor, describe_owner().encode())


def _read_owner(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except FileNotFoundError:  # it has been given up meanwhile
        return "another process"
