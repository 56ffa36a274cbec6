"""A folder that a feature set is written into: on a disk, or in object storage.

What a writer needs to know is the same for both: what is there, by one listing; that a file
appears whole; and which shards other processes make.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmcot_data.errors import ShardError
from mmcot_data.files import file_sha256, replace_file
from mmcot_data.shards.lock import (
    claim_owner,
    claim_shard,
    clear_claims,
    find_worker,
    lock_folder,
    present_worker,
    remove_half_written,
)
from mmcot_data.shards.remote import is_remote

__all__ = [
    "Buffer",
    "Claim",
    "DiskFolder",
    "Place",
    "StoredFile",
    "WritableFolder",
    "find_place",
    "find_root",
    "find_writable",
]

Buffer = bytes | memoryview
"""Of bytes."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What a listing says about a file."""

    nbytes: int
    etag: str | None = None
    """What the store calls these bytes; None on a disk."""


class Claim(Protocol):
    """A shard that this process makes."""

    def release(self) -> None:
        """Give it up; any thread may."""
        ...


class WritableFolder(Protocol):
    """A feature set's folder for those who write; ``str`` gives the place. It can be pickled."""

    @property
    def name(self) -> str:
        """The last part of the place."""
        ...

    def files(self, names: Iterable[str] | None = None) -> Mapping[str, StoredFile]:
        """All files by name, and the manifests of folders in it as ``name/manifest.json``.

        Args:
            names: Only those of these that are there.
        """
        ...

    def find(self, name: str) -> StoredFile | None:
        """One file; None if it isn't there."""
        ...

    def read(self, names: Iterable[str]) -> Mapping[str, bytes]:
        """The bytes of those files that are there."""
        ...

    def sha256(self, name: str) -> str:
        """Hex digest of a file's bytes; in object storage as noted when they were put there.

        Raises:
            ShardError: If the file isn't there.
        """
        ...

    def write(self, name: str, parts: Sequence[Buffer]) -> str | None:
        """Write a file, whole or not at all; the caller has claimed it or holds the lock.

        Returns:
            What the store calls these bytes from now on; None on a disk.

        Raises:
            DiskFullError: If there is no room.
            OSError: If the claim or the lock was lost, or writing fails.
        """
        ...

    def remove(self, name: str) -> None:
        """Delete a file if it is there; the caller has claimed it or holds the lock."""
        ...

    def remove_half_written(self, names: Sequence[str] | None = None) -> None:
        """Delete what killed processes left of files that nobody writes; of all if None."""
        ...

    def lock(self, wait: float = 0.0) -> AbstractContextManager[None]:
        """As ``lock_folder``."""
        ...

    def claim(self, file: str, wait: float = 0.0) -> Claim | None:
        """As ``claim_shard``."""
        ...

    def claimed(self, files: Sequence[str]) -> set[str]:
        """Those of some shards that a process, this one included, makes at this moment."""
        ...

    def owner(self, file: str) -> str:
        """As ``claim_owner``."""
        ...

    def present_worker(self) -> AbstractContextManager[None]:
        """As ``lock.present_worker``."""
        ...

    def find_worker(self) -> str | None:
        """As ``lock.find_worker``."""
        ...

    def clear_claims(self) -> None:
        """As ``lock.clear_claims``."""
        ...


@dataclass(frozen=True, slots=True)
class DiskFolder:
    """A folder of a disk or of a network file system; ``lock`` has the locks."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name

    def files(self, names: Iterable[str] | None = None) -> Mapping[str, StoredFile]:
        """All files, and the manifests of folders in it; or some of them."""
        found = (
            (name, self.find(name)) for name in (_names(self.path) if names is None else names)
        )
        return {name: file for name, file in found if file is not None}

    def find(self, name: str) -> StoredFile | None:
        """One file."""
        try:
            return StoredFile((self.path / name).stat().st_size)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, names: Iterable[str]) -> Mapping[str, bytes]:
        """The bytes of those files that are there."""
        found = {}
        for name in names:
            try:
                found[name] = (self.path / name).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found

    def sha256(self, name: str) -> str:
        """Hex digest of the bytes that are there now."""
        try:
            return file_sha256(self.path / name)
        except FileNotFoundError as error:
            raise ShardError(f"{self.path / name} is absent") from error

    def write(self, name: str, parts: Sequence[Buffer]) -> None:
        """Write a file by renaming another one."""

        def fill(path: Path) -> None:
            with path.open("wb") as file:
                for part in parts:
                    file.write(part)

        replace_file(self.path / name, fill)

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def remove_half_written(self, names: Sequence[str] | None = None) -> None:
        """Delete temporary files."""
        for name in ("",) if names is None else names:
            remove_half_written(self.path, name)

    def lock(self, wait: float = 0.0) -> AbstractContextManager[None]:
        """Exclude every other writer."""
        return lock_folder(self.path, wait)

    def claim(self, file: str, wait: float = 0.0) -> Claim | None:
        """Claim a shard."""
        return claim_shard(self.path, file, wait)

    def claimed(self, files: Sequence[str]) -> set[str]:
        """Those shards whose claim can't be had."""
        found = set()
        for file in files:
            if (claim := claim_shard(self.path, file)) is None:
                found.add(file)
            else:
                claim.release()
        return found

    def owner(self, file: str) -> str:
        """Who makes a shard."""
        return claim_owner(self.path, file)

    def present_worker(self) -> AbstractContextManager[None]:
        """Let it be known that this process makes shards."""
        return present_worker(self.path)

    def find_worker(self) -> str | None:
        """Who makes shards."""
        return find_worker(self.path)

    def clear_claims(self) -> None:
        """Delete the files of claims that nobody holds."""
        clear_claims(self.path)


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                yield f"{entry.name}/manifest.json" if entry.is_dir() else entry.name
    except (FileNotFoundError, NotADirectoryError):
        return


Place = Path | WritableFolder
"""Where a feature set is written; ``str`` gives it as it was asked for."""


def find_writable(place: Place) -> WritableFolder:
    """The folder of a place."""
    return DiskFolder(place) if isinstance(place, Path) else place


def find_root(out: str | Path) -> Path | str:
    """An artifact root that can be written into: a path, or the URL of a bucket's prefix.

    Raises:
        ShardError: If it is a URL of another kind.
    """
    if not is_remote(out):
        return Path(out)
    url = str(out).rstrip("/")
    if re.fullmatch(r"s3a?://[^/]+(/.+)?", url) is None or "?" in url or "#" in url:
        raise ShardError(
            f"{out}: expected a folder, or s3://BUCKET/NAME, to write to; other storage can be "
            "read from: write into a folder and copy it there"
        )
    return url


def find_place(out: str | Path, name: str) -> Place:
    """The feature set of a name in an artifact root.

    Raises:
        ShardError: As ``find_root``.
    """
    root = find_root(out)
    if isinstance(root, Path):
        return root / name
    from mmcot_data.shards.object_folder import ObjectFolder

    return ObjectFolder(f"{root}/{name}")
