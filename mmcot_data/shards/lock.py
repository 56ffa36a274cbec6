"""One writer at a time in a feature set's folder."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mmcot_data.errors import FolderLockedError

__all__ = ["lock_folder"]

_LOCK = ".lock"


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Exclude every other writer from a folder, which is made if it is absent.

    The operating system holds the lock (``flock``): it is free as soon as its process is gone,
    however that ended. The file stays and means nothing; who holds the lock is written in it.

    Raises:
        FolderLockedError: If another process, or another run in this process, holds the lock.
        OSError: If the file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _LOCK
    try:
        with FileLock(path, blocking=False, on_acquired=_write_owner):
            yield
    except Timeout as error:
        raise FolderLockedError(
            f"{folder} is being written by {_read_owner(path)}; wait until it has finished, or "
            "choose another folder"
        ) from error


def _write_owner(descriptor: int) -> None:
    owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}"
    os.ftruncate(descriptor, 0)
    os.write(descriptor, owner.encode())


def _read_owner(path: Path) -> str:
    return path.read_text(encoding="utf-8") or "another process"
