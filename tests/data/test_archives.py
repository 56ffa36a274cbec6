"""Archives that attack, archives that are damaged, and good ones."""

import io
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmcot_data.downloads import disk_space
from mmcot_data.downloads.archives import unpack_tar, unpack_zip
from mmcot_data.errors import DataError, DiskFullError

LIMITS = {"max_bytes": 1_000_000, "max_files": 50}
FILES = {"1/image.png": b"one" * 5000, "1/choice_0.png": b"", "2/image.png": bytes(range(256)) * 9}
UNPACKERS = {"zip": unpack_zip, "tar": unpack_tar, "tar.gz": unpack_tar}


def make_zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return data.getvalue()


def make_tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


MAKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": make_zip,
    "tar": make_tar,
    "tar.gz": lambda files: make_tar(files, "w:gz"),
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refuse(tmp_path: Path, kind: str, data: bytes, match: str, **limits: int) -> str:
    """Unpack, which must fail and change nothing, whether the folder is there or not."""
    archive = tmp_path / f"archive.{kind}"
    archive.write_bytes(data)
    (tmp_path / "neighbour").write_bytes(b"untouched")
    folder = tmp_path / "out"
    message = ""
    for is_there in (False, True):
        if is_there:
            folder.mkdir()
        before = snapshot(tmp_path)
        with pytest.raises(DataError, match=match) as caught:
            UNPACKERS[kind](archive, folder, **(LIMITS | limits))
        assert snapshot(tmp_path) == before
        message = str(caught.value)
    assert str(archive) in message
    return message


# Good archives


@pytest.mark.parametrize("kind", MAKERS)
def test_files_come_out_as_they_went_in(tmp_path, kind):
    """Would catch members that are mixed up, cut, or left out; folders count as no files."""
    archive = tmp_path / "archive"
    archive.write_bytes(MAKERS[kind](FILES))
    progress = []
    names = UNPACKERS[kind](
        archive, tmp_path / "deep" / "out", **LIMITS, on_progress=lambda *n: progress.append(n)
    )
    assert names == list(FILES)
    found = snapshot(tmp_path / "deep")
    assert {name: content for name, content in found.items() if content is not None} == {
        f"out/{name}": content for name, content in FILES.items()
    }
    assert progress == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("kind", MAKERS)
def test_only_what_is_accepted_is_written(tmp_path, kind):
    files = {"__MACOSX/1/._image.png": b"x", **FILES, "1/.DS_Store": b"y"}
    archive = tmp_path / "archive"
    archive.write_bytes(MAKERS[kind](files))
    names = UNPACKERS[kind](
        archive, tmp_path / "out", **LIMITS, accept=lambda name: name.endswith("image.png")
    )
    assert names == ["__MACOSX/1/._image.png", "1/image.png", "2/image.png"]
    assert sorted(snapshot(tmp_path / "out")) == sorted(
        [*names, "1", "2", "__MACOSX", "__MACOSX/1"]
    )


def test_archives_of_common_tools(tmp_path):
    """Would catch refusals of what zip -r and tar czf . write: folders, and names with ./"""
    source = tmp_path / "source"
    (source / "1").mkdir(parents=True)
    (source / "1" / "image.png").write_bytes(b"one")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(source / "1", "1")
        archive.write(source / "1" / "image.png", "1/image.png")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(source, ".")
    for name, unpack in (("a.zip", unpack_zip), ("a.tar.gz", unpack_tar)):
        assert unpack(tmp_path / name, tmp_path / "out" / name, **LIMITS) == ["1/image.png"]
        assert snapshot(tmp_path / "out" / name) == {"1": None, "1/image.png": b"one"}


def test_long_and_foreign_names(tmp_path):
    files = {"ö/" + "ü" * 100 + "/" + "n" * 200: b"1", "日本.png": b"2"}
    for kind, make in MAKERS.items():
        (tmp_path / "archive").write_bytes(make(files))
        names = UNPACKERS[kind](tmp_path / "archive", tmp_path / kind, **LIMITS)
        assert names == list(files)


def test_folder_with_files_is_not_touched(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip(FILES))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_bytes(b"mine")
    before = snapshot(tmp_path)
    with pytest.raises(DataError, match="expected no folder, or an empty one"):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out", **LIMITS)
    assert snapshot(tmp_path) == before


def test_what_a_killed_process_left_is_replaced(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip(FILES))
    (tmp_path / ".out.unpacking" / "1").mkdir(parents=True)
    (tmp_path / ".out.unpacking" / "1" / "image.png").write_bytes(b"half")
    unpack_zip(tmp_path / "a.zip", tmp_path / "out", **LIMITS)
    assert (tmp_path / "out/1/image.png").read_bytes() == FILES["1/image.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


# Attacks by name


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "leads out of the folder"),
        ("a/../../evil", "leads out of the folder"),
        ("/tmp/evil", "absolute path"),
        ("//server/evil", "absolute path"),
        ("C:/evil", "drive letter"),
        ("c:evil", "drive letter"),
        ("..\\evil", "backslash"),
        ("a//evil", "empty part"),
        ("a/./evil", "empty part"),
        ("a\nevil", "control character"),
        ("a/" + "n" * 256, "too long"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, kind, name, reason):
    """Would catch the write of a file outside of the folder; good members before it don't help."""
    message = refuse(tmp_path, kind, MAKERS[kind]({**FILES, name: b"evil"}), reason)
    assert repr(name) in message


def test_name_with_a_zero_byte(tmp_path):
    """Python's zipfile cuts the name there, so that it looks harmless."""
    data = make_zip({"good.png~/../../evil": b"evil"}).replace(b"good.png~", b"good.png\0")
    refuse(tmp_path, "zip", data, "leads out of the folder|damaged")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("a", "a"), "is there twice"),
        (("é", "e\u0301"), "is there twice"),
        (("a", "a/b"), "inside 'a', which is a file"),
        (("a/b", "a"), "is there twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_stand_for_two_things(tmp_path, kind, names, reason):
    """Would catch a second member that replaces what was checked of the first."""
    if kind == "zip":
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
    else:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
    refuse(tmp_path, kind, data.getvalue(), reason)


# Attacks by kind


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140666])
def test_zip_with_links_and_devices(tmp_path, mode):
    """Would catch a link that later members are written through."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = mode << 16
        archive.writestr(member, "/etc")
    assert "'link'" in refuse(tmp_path, "zip", data.getvalue(), "link or a device")


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize(
    "type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_tar_with_links_and_devices(tmp_path, kind, type_):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz" if kind == "tar.gz" else "w") as archive:
        archive.addfile(tarfile.TarInfo("1/image.png"))
        member = tarfile.TarInfo("link")
        member.type, member.linkname = type_, "1/image.png"
        archive.addfile(member)
    assert "'link'" in refuse(tmp_path, kind, data.getvalue(), "link, a device")


def test_encrypted_zip(tmp_path):
    data = bytearray(make_zip({"a": b"x"}))
    data[6] |= 1  # the flags of the local header
    data[data.find(b"PK\1\2") + 8] |= 1  # and of the directory
    refuse(tmp_path, "zip", bytes(data), "is encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_cannot_be_bounded(tmp_path, method):
    refuse(tmp_path, "zip", make_zip({"a": b"x" * 1000}, method), "in another way than deflate")


# Attacks by size


@pytest.mark.parametrize("kind", MAKERS)
def test_archive_that_declares_too_much(tmp_path, kind):
    """A bomb: thousandfold compression, refused by what it declares, before anything is written."""
    data = MAKERS[kind]({"small": b"x", "bomb": bytes(999_999), "last": b"y"})
    message = refuse(tmp_path, kind, data, "declares 1 bytes, with which it has 1000001")
    assert "'last'" in message


@pytest.mark.parametrize("kind", MAKERS)
def test_archive_with_too_many_files(tmp_path, kind):
    refuse(tmp_path, kind, MAKERS[kind]({str(i): b"" for i in range(51)}), "one more than the 50")


def forge_size(data: bytes, size: int, crc: int) -> bytes:
    """Declare another size and checksum of the only member of a zip file."""
    forged = bytearray(data)
    local, central = 0, data.find(b"PK\1\2")
    struct.pack_into("<I", forged, local + 14, crc)
    struct.pack_into("<I", forged, local + 22, size)
    struct.pack_into("<I", forged, central + 16, crc)
    struct.pack_into("<I", forged, central + 24, size)
    return bytes(forged)


@pytest.mark.parametrize("size", [999, 1001])
def test_member_that_yields_another_size_than_declared(tmp_path, size):
    """Would catch a bomb that declares little, and a member that ends too soon."""
    data = make_zip({"a": b"x" * 1000})
    refuse(tmp_path, "zip", forge_size(data, size, zlib.crc32(b"x" * 1000)), "damaged|come out")


def test_bomb_that_declares_little_costs_no_memory(tmp_path):
    bomb = forge_size(make_zip({"a": bytes(50_000_000)}), 1000, zlib.crc32(bytes(50_000_000)))
    tracemalloc.start()
    refuse(tmp_path, "zip", bomb, "damaged|come out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_members_that_share_their_bytes(tmp_path):
    """As of the bomb of Fifield, in which every member is made of those after it."""
    data = make_zip({"a": b"x" * 1000}, zipfile.ZIP_STORED)
    begin, end = data.find(b"PK\1\2"), data.find(b"PK\5\6")
    entry = data[begin:end]
    twice = entry + entry.replace(b"a", b"b", 1)
    closing = bytearray(data[end:])
    struct.pack_into("<HHI", closing, 8, 2, 2, len(twice))
    refuse(tmp_path, "zip", data[:begin] + twice + closing, "overlaps another one")


def test_tar_header_of_any_length(tmp_path):
    """Would catch a gigabyte in memory for a name: tarfile reads long headers as a whole."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a")
        member.pax_headers = {"comment": "x" * 20_000_000}
        archive.addfile(member)
    tracemalloc.start()
    refuse(tmp_path, "tar.gz", data.getvalue(), "a header has 2.* bytes", max_bytes=10**8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_sparse_tar(tmp_path):
    """A few bytes that unpack to any size."""
    member = tarfile.TarInfo("a")
    member.type = tarfile.GNUTYPE_SPARSE
    refuse(tmp_path, "tar", member.tobuf(tarfile.GNU_FORMAT) + bytes(1024), "sparse|damaged")


def test_tar_with_a_negative_size(tmp_path):
    """Would catch sums that stay small because a member counts backwards, and endless loops."""
    header = bytearray(tarfile.TarInfo("a").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 4 + (-1024).to_bytes(8, "big", signed=True)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    refuse(tmp_path, "tar", bytes(header) + bytes(1024), "declares -1024 bytes|damaged")


# Damage


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_no_archive(tmp_path, kind):
    for data in (b"", b"<html>Log in</html>", b"x" * 5000, b"PK\3\4", b"\x1f\x8b"):
        refuse_once = tmp_path / str(len(data))
        refuse_once.mkdir()
        refuse(refuse_once, kind, data, "cut off, damaged, or not such an archive")


@pytest.mark.parametrize("kind", MAKERS)
def test_archive_that_is_cut_anywhere(tmp_path, kind):
    """Would catch a cut archive whose first files are taken for all."""
    whole = MAKERS[kind](FILES)
    end = len(whole) if kind != "tar" else len(whole.rstrip(b"\0")) + 512
    for length in range(0, end - 1, 97):
        folder = tmp_path / str(length)
        folder.mkdir()
        refuse(folder, kind, whole[:length], "cut off, damaged, or not such an archive")


def test_wrong_checksum(tmp_path):
    data = bytearray(make_zip({"a": b"x" * 1000}, zipfile.ZIP_STORED))
    data[500] ^= 1
    refuse(tmp_path, "zip", bytes(data), "CRC")
    data = bytearray(make_tar(FILES, "w:gz"))
    data[-6] ^= 1  # of gzip, at the very end
    (tmp_path / "tar").mkdir()
    refuse(tmp_path / "tar", "tar.gz", bytes(data), "CRC")


def test_rubbish_between_members_of_a_tar(tmp_path):
    """Would catch tarfile's silence: a header that makes no sense ends the archive for it."""
    data = bytearray(make_tar(FILES))
    second = data.find(b"1/choice_0.png")
    data[second + 148 : second + 156] = b"rubbish!"
    refuse(tmp_path, "tar", bytes(data), "its end is missing")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(MAKERS)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4),
)
def test_any_damage_is_an_error_or_harmless(tmp_path_factory, kind, changes):
    """Would catch other errors than DataError, and files that stay after one."""
    folder = tmp_path_factory.mktemp("damage")
    data = bytearray(MAKERS[kind](FILES))
    for place, change in changes:
        data[int(place * len(data))] ^= change
    (folder / "archive").write_bytes(data)
    try:
        names = UNPACKERS[kind](folder / "archive", folder / "out", **LIMITS)
    except DataError:
        assert list(snapshot(folder)) == ["archive"]
    else:
        found = snapshot(folder / "out")
        assert sorted(names) == sorted(name for name in found if found[name] is not None)
        if kind != "tar":  # has no checksums of contents
            for name in names:
                assert found[name] in FILES.values()


# The disk


def test_free_space_is_checked_first(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(make_zip(FILES))
    before = snapshot(tmp_path)
    monkeypatch.setattr(disk_space, "_free_nbytes", lambda _: 100)
    with pytest.raises(DiskFullError, match=r"unpacking a\.zip needs"):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out", **LIMITS)
    assert snapshot(tmp_path) == before


def test_interruption_leaves_nothing(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip(FILES))
    before = snapshot(tmp_path)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack_zip(tmp_path / "a.zip", tmp_path / "out", **LIMITS, on_progress=interrupt)
    assert snapshot(tmp_path) == before
