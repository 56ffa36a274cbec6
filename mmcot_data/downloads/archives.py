"""Unpack archives that are not trusted.

Everything that an archive declares is checked before the first file is written, and what comes out
is compared with it. Plain files alone are unpacked, without their times and permissions; what else
an archive can hold (links, devices, encrypted members) is refused, as are names that lead out of
the folder. The files appear together, when all are written; they are not yet flushed to the disk.
One process at a time can unpack into a folder.
"""

import gzip
import io
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import IO

from mmcot_data.downloads.archive_members import ArchiveMembers

__all__ = ["unpack_tar", "unpack_zip"]

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
)
_BLOCK = 512
_ENCRYPTED = 0x1
_LONGEST_READ = 2**20


def _accept_all(name: str) -> bool:
    del name
    return True


def _ignore(*args: int) -> None:
    del args


def unpack_zip(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int,
    max_files: int,
    accept: Callable[[str], bool] = _accept_all,
    on_progress: Callable[[int, int], object] = _ignore,
) -> list[str]:
    """Unpack a zip file whose members are stored or deflated.

    Args:
        archive: The zip file.
        folder: Where to; must be absent or empty. After an error it is what it was.
        max_bytes: Limit of what all members together declare.
        max_files: Limit of the number of members.
        accept: Which files to write, by name; the others are checked and left out.
        on_progress: Called with the number of files that are written, and of all.

    Returns:
        Names of the files, relative to ``folder``, in the order of the archive.

    Raises:
        DataError: If the archive is damaged, not a zip file or not safe, or if ``folder`` is not
            empty.
        DiskFullError: If there is no room.
    """
    members = ArchiveMembers(archive, max_bytes, max_files, _DAMAGE)
    with archive.open("rb") as file:
        with members.damage_explained():
            opened = zipfile.ZipFile(file)
        for member in opened.infolist():
            _add_zip_member(members, opened, member)
        _refuse_overlaps(members, opened.infolist())
        return members.write(folder, accept, on_progress)


def unpack_tar(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int,
    max_files: int,
    accept: Callable[[str], bool] = _accept_all,
    on_progress: Callable[[int, int], object] = _ignore,
) -> list[str]:
    """Unpack a tar file, plain or compressed with gzip.

    Args, result and errors are those of ``unpack_zip``.
    """
    members = ArchiveMembers(archive, max_bytes, max_files, _DAMAGE)
    with archive.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        source = _ShortReads(gzip.GzipFile(fileobj=file) if is_gzip else file)
        with members.damage_explained():
            opened = tarfile.open(fileobj=source, mode="r:")  # noqa: SIM115 - of no resources
            for member in opened:
                _add_tar_member(members, opened, member)
            if source.last != bytes(_BLOCK):
                raise tarfile.ReadError("its end is missing")
            source.read_rest(max_bytes)
        return members.write(folder, accept, on_progress)


def _add_zip_member(
    members: ArchiveMembers, opened: zipfile.ZipFile, member: zipfile.ZipInfo
) -> None:
    name = member.orig_filename  # what follows a zero byte is cut from the other one
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise members.refuse(name, "is a link or a device")
    if member.flag_bits & _ENCRYPTED:
        raise members.refuse(name, "is encrypted")
    if name.endswith("/"):
        members.add_folder(name.removesuffix("/"))
        return
    if kind == stat.S_IFDIR:
        raise members.refuse(name, "is a folder with the name of a file")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # The other methods can't be read in bounded steps.
        raise members.refuse(name, "is compressed in another way than deflate")
    members.add_file(name, member.file_size, partial(opened.open, member))


def _refuse_overlaps(members: ArchiveMembers, infos: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse members that share bytes, with which a small archive can hold endless files."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise members.refuse(info.orig_filename, "overlaps another one")
        end = info.header_offset + info.compress_size


def _add_tar_member(
    members: ArchiveMembers, opened: tarfile.TarFile, member: tarfile.TarInfo
) -> None:
    name = member.name.removeprefix("./")
    if member.isdir():
        if name != ".":
            members.add_folder(name)
    elif member.isreg() and not member.issparse():
        members.add_file(name, member.size, partial(_open_tar_member, opened, member))
    else:
        raise members.refuse(name, "is a link, a device or a sparse file")


def _open_tar_member(opened: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    source = opened.extractfile(member)
    assert source is not None
    return source


class _ShortReads(io.RawIOBase):
    """What tarfile reads, of which it would hold a header of any length in memory."""

    def __init__(self, source: IO[bytes] | gzip.GzipFile) -> None:
        self._source = source
        self.last = b""
        """What was read last."""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LONGEST_READ:
            raise tarfile.ReadError(f"a header has {size} bytes")
        self.last = self._source.read(size)
        return self.last

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def read_rest(self, max_bytes: int) -> None:
        """Read what follows the last member, so that the checksum of gzip is compared."""
        nbytes = 0
        while data := self._source.read(_LONGEST_READ):
            nbytes += len(data)
            if nbytes > max_bytes:
                raise tarfile.ReadError("there is too much after its end")
