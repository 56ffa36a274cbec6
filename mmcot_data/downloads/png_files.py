"""Whether a picture is a whole PNG, without decoding its pixels."""

from mmcot_data.errors import ImageError
from mmcot_data.image_containers import check_png_checksums
from mmcot_data.images import header_size

__all__ = ["png_fault"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"


def png_fault(data: bytes) -> str | None:
    """What is wrong with a picture that should be a PNG; None if nothing is.

    Its header is read, and the checksums of all chunks that pixels come from are compared.
    """
    if not data.startswith(_SIGNATURE):
        return (
            f"expected a PNG, found {len(data)} bytes that begin with {data[:8]!r}; pictures are "
            "stored as they come, not re-encoded"
        )
    try:
        header_size(data, "it")
        check_png_checksums(data, "it")
    except ImageError as error:
        return str(error)
    return None if _END in data else f"it is cut off: a PNG of {len(data)} bytes without its end"
