"""The way to RGB of every kind of picture that Pillow opens.

``images`` says what decoding means; here is what Pillow leaves to be done for it.
"""

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from mmcot_data.encoders.base import Alpha
from mmcot_data.errors import ImageError
from mmcot_data.image_containers import png_bit_depth

__all__ = ["check_tiff", "to_rgb"]

_PLAIN_MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_ALPHA_MODES = ("LA", "PA", "RGBA")
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_STRIP_OFFSETS, _STRIP_NBYTES, _TILE_OFFSETS, _TILE_NBYTES = 273, 279, 324, 325
_WHITE_IS_ZERO = 0
_UNSIGNED = 1


def check_tiff(image: TiffImageFile, data: bytes, name: str) -> None:
    """Refuse what Pillow would open in the mode of another kind, and files that are cut.

    Raises:
        ImageError: ``unsupported`` or ``truncated``.
    """
    tags = image.tag_v2
    bits = set(tags.get(_BITS, (1,)))
    formats = set(tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)))
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and max(bits) > 8
    if formats != {_UNSIGNED} or not bits <= {1, 2, 4, 8, 16} or inverted:
        raise ImageError(
            "unsupported",
            f"{name}: a TIFF with samples of {_join(bits)} bits, sample format {_join(formats)} "
            f"and photometric interpretation {tags.get(_PHOTOMETRIC)} has no defined way to RGB; "
            "expected unsigned integers of up to 8 bits, or of 16 with 0 for black",
        )
    for starts, nbytes in ((_STRIP_OFFSETS, _STRIP_NBYTES), (_TILE_OFFSETS, _TILE_NBYTES)):
        end = max(
            map(sum, zip(tags.get(starts, ()), tags.get(nbytes, ()), strict=False)), default=0
        )
        if end > len(data):
            raise ImageError(
                "truncated", f"{name}: {len(data)} bytes, but its pixels end at byte {end}"
            )


def to_rgb(image: Image.Image, data: bytes, name: str, alpha: Alpha) -> Image.Image:
    """Convert a loaded picture.

    Args:
        image: As Pillow loaded it.
        data: The bytes that it was loaded from.
        name: What to call it in errors.
        alpha: What becomes of transparent pixels.

    Raises:
        ImageError: ``unsupported``.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _high_byte(image, alpha)
    if image.mode not in _PLAIN_MODES + _ALPHA_MODES:
        raise ImageError("unsupported", f"{name}: mode {image.mode} has no defined way to RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    if alpha == "drop":
        image.info.pop("transparency", None)
        return image.convert("RGB")
    if image.format == "PNG":
        _scale_clear_colour(image, png_bit_depth(data), name)
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white


def _high_byte(image: Image.Image, alpha: Alpha) -> Image.Image:
    samples = np.asarray(image)
    high = (samples >> 8).astype(np.uint8)
    clear = image.info.get("transparency")
    if clear is not None and alpha == "white":
        high[samples == clear] = 255
    return Image.fromarray(high).convert("RGB")


def _scale_clear_colour(image: Image.Image, bits: int, name: str) -> None:
    """Pillow scales samples to 8 bits, and leaves the clear one as it stands in the file."""
    if image.mode in ("1", "L") and bits < 8:
        clear = image.info["transparency"]
        image.info["transparency"] = min(255, clear * 255 // (2**bits - 1))
    elif image.mode == "RGB" and bits == 16:
        raise ImageError(
            "unsupported",
            f"{name}: a colour of 3 x 16 bits is to be transparent; Pillow keeps 8 of them, so "
            "that it can't be told from others",
        )


def _join(numbers: set[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))
