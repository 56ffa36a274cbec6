"""The members of an archive that is not trusted: all are checked, then written, all or none."""

import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from mmcot_data.downloads.disk_space import check_free_space
from mmcot_data.downloads.safe_names import why_unsafe
from mmcot_data.errors import DataError
from mmcot_data.files import disk_errors_explained

__all__ = ["ArchiveMembers"]

_STEP = 2**20


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    nbytes: int
    open: Callable[[], IO[bytes]]


class ArchiveMembers:
    """Files of an archive, each checked when it is added.

    Args:
        archive: The archive.
        max_bytes: Limit of all its files together.
        max_files: Limit of the number of files and folders.
        damage: Errors of the library that reads it, which mean that its bytes make no sense.
    """

    def __init__(
        self, archive: Path, max_bytes: int, max_files: int, damage: tuple[type[Exception], ...]
    ) -> None:
        self._archive = archive
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._damage = damage
        self._files: list[_Member] = []
        self._kinds: dict[str, bool] = {}
        """By normalised name: whether it is a file, not a folder."""
        self._num_members = 0
        self._nbytes = 0

    @contextmanager
    def damage_explained(self) -> Iterator[None]:
        """Turn errors of the library into ``DataError``."""
        try:
            yield
        except self._damage as error:
            raise DataError(
                f"{self._archive} is cut off, damaged, or not such an archive ({error}): delete it "
                "and fetch it again"
            ) from error

    def refuse(self, name: str, reason: str) -> DataError:
        """The error of a member that must not be unpacked."""
        return DataError(
            f"{self._archive} is not safe to unpack: its member {name!r} {reason}. Nothing was "
            "unpacked"
        )

    def add_folder(self, name: str) -> None:
        """Check a folder; one is made only where a file is in it.

        Raises:
            DataError: If its name is not safe, or there are too many members.
        """
        self._count(name, 0)
        self._check_name(name, is_file=False)

    def add_file(self, name: str, nbytes: int, open_member: Callable[[], IO[bytes]]) -> None:
        """Check a file.

        Args:
            name: Relative, with forward slashes.
            nbytes: Its size, as the archive declares it.
            open_member: Called to read it.

        Raises:
            DataError: If its name is not safe or stands for two files, or the limits are passed.
        """
        self._count(name, nbytes)
        self._check_name(name, is_file=True)
        self._files.append(_Member(name, nbytes, open_member))

    def write(
        self,
        folder: Path,
        accept: Callable[[str], bool],
        on_progress: Callable[[int, int], object],
    ) -> list[str]:
        """Write the files that ``accept`` wants, and give their names in the archive's order.

        Raises:
            DataError: If a file is not what the archive declares, or ``folder`` is not empty.
            DiskFullError: If there is no room.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder} is there already: expected no folder, or an empty one")
        wanted = [member for member in self._files if accept(member.name)]
        nbytes = sum(member.nbytes for member in wanted)
        check_free_space(folder.parent, nbytes, f"unpacking {self._archive.name}")
        unfinished = folder.with_name(f".{folder.name}.unpacking")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
        try:
            with disk_errors_explained(folder):
                unfinished.mkdir(parents=True)
                for number, member in enumerate(wanted, 1):
                    self._write_file(member, unfinished / member.name)
                    on_progress(number, len(wanted))
                unfinished.replace(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return [member.name for member in wanted]

    def _count(self, name: str, nbytes: int) -> None:
        self._num_members += 1
        self._nbytes += nbytes
        if nbytes < 0:
            raise self.refuse(name, f"declares {nbytes} bytes")
        if self._num_members > self._max_files:
            raise self.refuse(name, f"is one more than the {self._max_files} that are expected")
        if self._nbytes > self._max_bytes:
            raise self.refuse(
                name,
                f"declares {nbytes} bytes, with which it has {self._nbytes}, more than the "
                f"{self._max_bytes} that are expected",
            )

    def _check_name(self, name: str, *, is_file: bool) -> None:
        reason = why_unsafe(name)
        if reason is not None:
            raise self.refuse(name, f"has a name that cannot be used: {reason}")
        same = unicodedata.normalize("NFC", name)
        if same in self._kinds and (is_file or self._kinds[same]):
            raise self.refuse(name, "is there twice")
        for parent in PurePosixPath(same).parents[:-1]:
            if self._kinds.setdefault(str(parent), False):
                raise self.refuse(name, f"is inside {str(parent)!r}, which is a file")
        self._kinds[same] = is_file

    def _write_file(self, member: _Member, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        nbytes = 0
        with path.open("xb") as file:
            for data in self._read(member):
                nbytes += len(data)
                if nbytes > member.nbytes:
                    break
                file.write(data)
        if nbytes != member.nbytes:
            found = "more" if nbytes > member.nbytes else str(nbytes)
            raise self.refuse(
                member.name, f"declares {member.nbytes} bytes, and {found} come out of it"
            )

    def _read(self, member: _Member) -> Iterator[bytes]:
        with self.damage_explained(), member.open() as source:
            while data := source.read(_STEP):
                yield data
