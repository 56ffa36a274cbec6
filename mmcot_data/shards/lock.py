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

from filelock import FileLock, Timeout

from mmcot_data.errors import FolderLockedError

__all__ = [
    "Claim",
    "claim_owner",
    "claim_shard",
    "clear_claims",
    "is_anything_claimed",
    "lock_folder",
    "remove_half_written",
]

_LOCK = ".lock"
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
    path = _claim_path(folder, file)
    return _read_owner(path) if path.exists() else "another process"


def remove_half_written(folder: Path, file: str = "") -> None:
    """Delete what a killed process left of a file; of every file if none is named."""
    for path in folder.glob(f".{file}*.tmp"):
        path.unlink(missing_ok=True)


def is_anything_claimed(folder: Path) -> bool:
    """Whether any process makes a shard of a feature set at this moment."""
    for path in folder.glob(f".*{_CLAIM_SUFFIX}"):
        lock = FileLock(path, blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout:
            return True
        lock.release()
    return False


def clear_claims(folder: Path) -> None:
    """Delete the files of claims; only where every shard is complete."""
    for path in folder.glob(f".*{_CLAIM_SUFFIX}"):
        path.unlink(missing_ok=True)


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


def _write_owner(descriptor: int) -> None:
    owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}"
    os.ftruncate(descriptor, 0)
    os.write(descriptor, owner.encode())


def _read_owner(path: Path) -> str:
    return path.read_text(encoding="utf-8") or "another process"
