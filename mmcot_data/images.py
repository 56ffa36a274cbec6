"""Open pictures: hash their bytes, decode them to RGB, in one defined way.

PNG, JPEG (with MPO, the JPEG of phones that holds several pictures), WebP, GIF, BMP and TIFF are
read. What decoding means here, whatever the file's mode:

- alpha is composited on white, or dropped if that is asked for;
- the EXIF orientation is applied, wherever it stands; metadata that are damaged say nothing;
- 16-bit samples keep their high byte; TIFFs of floats, signed numbers, 12 or 32 bits, and 16 bits
  of which 0 is white, are ``unsupported``;
- of an animation or of several pages the first frame counts: of an APNG the picture that programs
  show which know no APNG, of an MPO the first picture;
- inks become light by ``(255 - ink) * (255 - black) / 255``; those of every CMYK or YCCK JPEG are
  taken to be stored inverted, as Adobe does;
- ICC profiles, gamma and other hints for screens are ignored, as whoever trained a vision model
  ignored them;
- whatever stands behind the end of a picture is ignored.

A file that cannot be decoded whole is an ``ImageError``, never a partly grey picture. PNGs are
compared with their checksums. JPEG, GIF and BMP have none: damage in the middle, or an end mark set
too early, can give other pixels without anyone noticing.
"""

import errno
import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from mmcot_data.encoders.base import Alpha
from mmcot_data.errors import ImageError
from mmcot_data.image_containers import check_png_checksums, is_cut, png_orientation_chunks
from mmcot_data.image_modes import check_tiff, to_rgb

__all__ = [
    "MAX_PIXELS",
    "Picture",
    "bytes_sha256",
    "decode_rgb",
    "describe_decoding",
    "header_size",
    "pixel_sha256",
    "read_image",
    "read_image_bytes",
]

_ALPHA: dict[Alpha, str] = {
    "white": "composited on white",
    "drop": "dropped: transparent pixels keep the colour that they hide, as convert('RGB') does",
}

MAX_PIXELS: Final = 89_478_485
"""Pillow's default limit: 256 MiB of RGB."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_quiet = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture with its two identities."""

    image: Image.Image
    """RGB."""
    image_sha256: str
    """Of the file's bytes."""
    pixel_sha256: str
    """Of the decoded pixels and their size."""


def describe_decoding(alpha: Alpha) -> dict[str, Any]:
    """What ``decode_rgb`` does, as a step of a spec's preprocessing."""
    return {
        "step": "decode",
        "mode": "RGB",
        "alpha": _ALPHA[alpha],
        "orientation": "exif",
        "16-bit": "high byte",
        "implementation": "pil",
    }


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read, hash and decode one picture.

    Raises:
        ImageError: As ``read_image_bytes`` and ``decode_rgb``.
        OSError: If reading fails.
    """
    data = read_image_bytes(path)
    image = decode_rgb(data, str(path), max_pixels)
    return Picture(image=image, image_sha256=bytes_sha256(data), pixel_sha256=pixel_sha256(image))


def read_image_bytes(path: Path) -> bytes:
    """The bytes of a picture's file.

    Raises:
        ImageError: ``missing``, ``empty``, or ``unreadable`` if it is no file that this user may
            read.
        OSError: If reading fails, for example by an error of the disk: that says nothing about the
            picture, and another try may succeed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError("missing", f"{path} does not exist") from error
    except (IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise ImageError("unreadable", f"{path}: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageError("unreadable", f"{path}: {error.strerror}") from error
        error.filename = str(path)  # without it the message of a failed read names no file
        raise
    if not data:
        raise ImageError("empty", f"{path} has no bytes")
    return data


def bytes_sha256(data: bytes) -> str:
    """Hex sha256 of a file's bytes: what a picture is known by."""
    return hashlib.sha256(data).hexdigest()


def pixel_sha256(image: Image.Image) -> str:
    """Hex sha256 of ``<width>x<height>``, a newline, and the RGB bytes row by row.

    Equal for files that encode the same pixels in different ways.
    """
    digest = hashlib.sha256(f"{image.width}x{image.height}\n".encode())
    digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def header_size(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(width, height) of the decoded picture, without decoding it.

    Args:
        data: The file's bytes.
        name: What to call the picture in errors.
        max_pixels: As for ``decode_rgb``.

    Raises:
        ImageError: ``empty``, ``unreadable`` or ``too_large``; of a TIFF ``truncated`` and
            ``unsupported`` too.
    """
    with _open(data, name) as image:
        _check(image, data, name, max_pixels)
        width, height = image.size
        if isinstance(image, TiffImageFile):  # Pillow's versions differ in whether size is turned
            width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
        turned = _orientation(image, data) in _SIDEWAYS
        return (height, width) if turned else (width, height)


def decode_rgb(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS, alpha: Alpha = "white"
) -> Image.Image:
    """Decode a PNG, JPEG, WebP, GIF, BMP or TIFF to RGB.

    Args:
        data: The file's bytes.
        name: What to call the picture in errors.
        max_pixels: A picture with more pixels is refused before it is decoded. Above twice its
            own limit Pillow refuses whatever is asked here.
        alpha: What becomes of transparent pixels.

    Raises:
        ImageError: ``empty``, ``unreadable`` (not a picture, or damaged), ``truncated``,
            ``too_large`` or ``unsupported`` (a mode without a defined way to RGB).
        RuntimeError: If the process has told Pillow to load truncated files.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: pictures may be partly grey"
        )
    with _open(data, name) as image:
        _check(image, data, name, max_pixels)
        if image.format == "PNG":
            check_png_checksums(data, name)
        image.load()
        turn = _TURN.get(_orientation(image, data))  # 1 for a TIFF: Pillow has turned it
        rgb = to_rgb(image, data, name, alpha)
    return rgb if turn is None else rgb.transpose(turn)


@contextmanager
def _open(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open a picture; whatever Pillow raises meanwhile becomes an ImageError."""
    if not data:
        raise ImageError("empty", f"{name} has no bytes")
    try:
        with _without_warnings():
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        with image:
            yield image
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        formats = ", ".join(_FORMATS)
        raise ImageError(
            "truncated" if is_cut(data) else "unreadable",
            f"{name} is not a picture ({formats}), or its header is damaged",
        ) from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise ImageError(
            _reason(error, data), f"{name}: {type(error).__name__}: {error}"
        ) from error


def _reason(error: Exception, data: bytes) -> str:
    message = str(error).lower()
    if "decompressed data too large" in message:  # a bomb in a text or profile of a PNG
        return "too_large"
    if isinstance(error, EOFError) or "truncated" in message or is_cut(data):
        return "truncated"
    return "unreadable"


def _check(image: Image.Image, data: bytes, name: str, max_pixels: int) -> None:
    """Refuse what the header tells that it can't or shouldn't be decoded."""
    if image.width * image.height > max_pixels:
        raise ImageError(
            "too_large",
            f"{name}: {image.width} x {image.height} pixels, more than the {max_pixels} "
            "that are allowed",
        )
    if isinstance(image, TiffImageFile):
        check_tiff(image, data, name)


def _orientation(image: Image.Image, data: bytes) -> int:
    """As EXIF numbers them; 1 where the metadata are damaged, as viewers show such a picture."""
    metadata = png_orientation_chunks(data) if image.format == "PNG" else None
    if image.format == "PNG" and metadata is None:
        return 1
    try:
        with _without_warnings():
            if metadata is None:
                exif = image.getexif()
            else:
                with Image.open(io.BytesIO(metadata), formats=("PNG",)) as header:
                    exif = Image.Image.getexif(header)  # PngImageFile's would look for pixels
            return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of sizes and of metadata; filters of warnings belong to all threads."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
