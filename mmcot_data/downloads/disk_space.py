"""Whether a disk has room, before it is filled."""

import shutil
from pathlib import Path

from mmcot_data.errors import DiskFullError

__all__ = ["BLOCK_NBYTES", "check_free_space", "folder_nbytes"]

BLOCK_NBYTES = 4096
"""What a file on a disk takes more than its bytes, at most."""


def check_free_space(folder: Path, nbytes: int, what: str) -> None:
    """Refuse what cannot fit.

    Args:
        folder: Where it is to be written; need not exist.
        nbytes: Room that is needed.
        what: What needs it, for the message.

    Raises:
        DiskFullError: If less is free.
    """
    free = _free_nbytes(folder)
    if nbytes > free:
        raise DiskFullError(
            f"{what} needs {nbytes / 1e9:.2f} GB in {folder}, where {free / 1e9:.2f} GB are free: "
            "make room or choose another folder, and run the same command again"
        )


def folder_nbytes(folder: Path) -> int:
    """Room that a folder's files take, counted as for files that are to come; 0 if it is absent."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size + BLOCK_NBYTES for path in files)


def _free_nbytes(folder: Path) -> int:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
