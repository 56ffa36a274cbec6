"""Find the files of a folder and of the folders in it."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from mmcot_data.errors import DataError, ShardError
from mmcot_data.sealed_json import parse_sealed_json
from mmcot_data.sources.markers import QUESTIONS, SEALED_RECORDS, SHARD_RECORD

__all__ = ["list_files"]


def list_files(folder: Path, suffixes: Collection[str]) -> list[str]:
    """Paths relative to a folder, with ``/``, sorted as texts.

    Links to folders are followed, but not in circles. What is hidden (its name begins with a dot)
    is left out, and so is what lies in a hidden folder. So are feature sets, and artifact roots
    with questions: ``--out`` may lie within the data. Links that lead nowhere are listed: what they
    stand for is missing.

    Args:
        folder: Where to begin.
        suffixes: Of the files, in lower case, as ``.png``; upper case is found too.

    Raises:
        DataError: If a name is no valid Unicode.
        OSError: If a folder can't be read.
    """
    files = sorted(
        name for name in _walk(str(folder), "", ()) if Path(name).suffix.lower() in suffixes
    )
    for name in files:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{folder}: the name of the file {os.fsencode(name)!r} is no valid UTF-8, so that "
                "it can't stand in a table: rename it"
            ) from error
    return files


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Files below a folder; ``above`` are the device and number of the folders that lead to it."""
    status = os.stat(folder)  # noqa: PTH116
    own = (status.st_dev, status.st_ino)
    if own in above:
        return
    with os.scandir(folder) as scan:
        entries = [entry for entry in scan if not entry.name.startswith(".")]
    if above and _is_made_by_us(folder, {entry.name for entry in entries}):
        return
    for entry in entries:
        is_link = entry.is_symlink()
        if Path(entry.path).is_dir() if is_link else entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, own))
        elif is_link or entry.is_file():
            yield prefix + entry.name


def _is_made_by_us(folder: str, names: Collection[str]) -> bool:
    """Whether a folder is a feature set, or an artifact root with questions beside feature sets."""
    if _is_feature_set(folder, names):
        return True
    if QUESTIONS not in names:
        return False
    folders = (path for path in Path(folder).iterdir() if path.is_dir())
    return any(_is_feature_set(str(path), os.listdir(path)) for path in folders)  # noqa: PTH208


def _is_feature_set(folder: str, names: Collection[str]) -> bool:
    """By the record of a shard, or one that has our seal: others name files manifest.json, too."""
    return any(map(SHARD_RECORD.fullmatch, names)) or any(
        name in names and _is_sealed(Path(folder, name)) for name in SEALED_RECORDS
    )


def _is_sealed(path: Path) -> bool:
    try:
        parse_sealed_json(path.read_bytes(), str(path))
    except (ShardError, FileNotFoundError, IsADirectoryError):
        return False
    return True
