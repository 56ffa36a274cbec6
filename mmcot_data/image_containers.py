"""What the containers of pictures say before Pillow decodes them.

Of PNG the checksums and the chunks that say how the picture is turned, of WebP and TIFF whether
the file is shorter than it should be: their decoders do not tell cut files from damaged ones.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Literal

from mmcot_data.errors import ImageError

__all__ = ["check_png_checksums", "is_cut", "png_bit_depth", "png_orientation_chunks"]

_SIGNATURE_NBYTES = 8
_HEAD = struct.Struct(">I4s")
_CRC_NBYTES = 4
_ANCILLARY = 0x20
"""Bit of a kind's first letter: the picture can be shown without the chunk."""
_KEYWORDS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")


def check_png_checksums(data: bytes, name: str) -> None:
    """Compare the CRC of every whole chunk that the pixels come from.

    Pillow does not compare those of the pixels themselves.

    Raises:
        ImageError: ``unreadable``.
    """
    view = memoryview(data)
    for kind, start, end in _chunks(data):
        crc = end - _CRC_NBYTES
        if not kind[0] & _ANCILLARY and zlib.crc32(view[start + 4 : crc]) != int.from_bytes(
            view[crc:end]
        ):
            raise ImageError(
                "unreadable",
                f"{name} is damaged: the checksum of its chunk {kind.decode('latin-1')} at byte "
                f"{start} does not fit",
            )


def png_bit_depth(data: bytes) -> int:
    """Bits of a sample, as its header says."""
    return data[24]


def png_orientation_chunks(data: bytes) -> bytes | None:
    """A PNG without pixels that has only the metadata in which an orientation may stand.

    They may stand behind the pixels, where Pillow decodes the picture to find them.

    Returns:
        None if there are none.
    """
    kept, found = [data[:_SIGNATURE_NBYTES]], False
    for kind, start, end in _chunks(data):
        is_text = kind in (b"tEXt", b"zTXt", b"iTXt")
        if kind == b"eXIf" or (is_text and data.startswith(_KEYWORDS, start + _HEAD.size)):
            found = True
        elif kind not in (b"IHDR", b"IEND"):
            continue
        kept.append(data[start:end])
    return b"".join(kept) if found else None


def is_cut(data: bytes) -> bool:
    """Whether a WebP or TIFF ends before the place where it says that it ends or goes on."""
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data.startswith((b"II*\0", b"MM\0*")):
        order: Literal["little", "big"] = "little" if data.startswith(b"I") else "big"
        return int.from_bytes(data[4:8], order) >= len(data)
    return False


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of every whole chunk up to IEND."""
    start, kind = _SIGNATURE_NBYTES, b""
    while kind != b"IEND" and start + _HEAD.size <= len(data):
        length, kind = _HEAD.unpack_from(data, start)
        end = start + _HEAD.size + length + _CRC_NBYTES
        if end > len(data):
            return
        yield kind, start, end
        start = end
