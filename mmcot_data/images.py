"""Open pictures: hash their bytes, decode them to RGB, in one defined way.

What decoding means here, whatever the file's mode: alpha is composited on white, the EXIF
orientation is applied, 16-bit samples keep their high byte, of an animation the first frame
counts. A file that cannot be decoded whole is an ``ImageError``, never a partly grey picture.
"""

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from mmcot_data.errors import ImageError

__all__ = [
    "DECODING",
    "MAX_PIXELS",
    "Picture",
    "bytes_sha256",
    "decode_rgb",
    "header_size",
    "pixel_sha256",
    "read_image",
    "read_image_bytes",
]

DECODING: Final[dict[str, Any]] = {
    "step": "decode",
    "mode": "RGB",
    "alpha": "composited on white",
    "orientation": "exif",
    "16-bit": "high byte",
    "implementation": "pil",
}
"""What ``decode_rgb`` does, for the spec of features."""

MAX_PIXELS: Final = 89_478_485
"""Pillow's default limit: 256 MiB of RGB."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
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
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
_opening = threading.Lock()


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A decoded picture with its two identities."""

    image: Image.Image
    """RGB."""
    image_sha256: str
    """Of the file's bytes."""
    pixel_sha256: str
    """Of the decoded pixels and their size."""


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


def header_size(data: bytes, name: str) -> tuple[int, int]:
    """(width, height) of the decoded picture, without decoding it.

    Args:
        data: The file's bytes.
        name: What to call the picture in errors.

    Raises:
        ImageError: ``empty``, ``unreadable``, or ``too_large`` if it exceeds twice Pillow's limit.
    """
    with _open(data, name) as image:
        # Pillow decodes a PNG to look for metadata behind the pixels.
        may_turn = image.format != "PNG" or any(mark in data for mark in _PNG_ORIENTATION)
        if may_turn and _orientation(image) in _SIDEWAYS:
            return image.height, image.width
        return image.size


def decode_rgb(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a PNG, JPEG, WebP, GIF or BMP to RGB.

    Args:
        data: The file's bytes.
        name: What to call the picture in errors.
        max_pixels: A picture with more pixels is refused before it is decoded. Above twice its
            own limit Pillow refuses whatever is asked here.

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
        if image.width * image.height > max_pixels:
            raise ImageError(
                "too_large",
                f"{name}: {image.width} x {image.height} pixels, more than the {max_pixels} "
                "that are allowed",
            )
        image.load()
        turn = _TURN.get(_orientation(image))
        rgb = _to_rgb(image, name)
    return rgb if turn is None else rgb.transpose(turn)


@contextmanager
def _open(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open a picture; whatever Pillow raises meanwhile becomes an ImageError."""
    if not data:
        raise ImageError("empty", f"{name} has no bytes")
    try:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        with image:
            yield image
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        formats = ", ".join(_FORMATS)
        raise ImageError("unreadable", f"{name} is not a picture ({formats})") from error
    except Exception as error:  # decoders raise nearly anything on damaged files
        truncated = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = "truncated" if truncated else "unreadable"
        raise ImageError(reason, f"{name}: {type(error).__name__}: {error}") from error


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata: viewers show such a picture as it is stored
        return 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        samples = np.asarray(image)
        high = (samples >> 8).astype(np.uint8)
        if (key := image.info.get("transparency")) is not None:
            high[samples == key] = 255
        return Image.fromarray(high).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image.convert("RGB"), mask=image.getchannel("A"))
        return white
    if image.mode in _PLAIN_MODES:
        return image.convert("RGB")
    raise ImageError("unsupported", f"{name}: mode {image.mode} has no defined way to RGB")
