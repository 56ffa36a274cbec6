"""Know every picture before one is decoded: its digest, its size, or why it can't be used."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mmcot_data.errors import ImageError
from mmcot_data.images import bytes_sha256, header_size, read_image_bytes
from mmcot_data.scienceqa import QuestionImage

__all__ = ["ScannedImage", "scan_images"]

_NUM_THREADS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedImage:
    """One picture of one question, as far as its file's bytes and header tell."""

    question_id: str
    role: str
    path: Path
    image_sha256: str | None = None
    """Hex digest of the file's bytes; None if it can't be read."""
    width: int | None = None
    """Pixels; None if the header can't be read."""
    height: int | None = None
    reason: str | None = None
    """One word if the picture can't be used; None if it can, as far as is known."""
    error: str | None = None
    """The explanation."""


def scan_images(images: Sequence[QuestionImage]) -> list[ScannedImage]:
    """Hash every file and read its header; the order is kept.

    A file that is missing, empty or no picture is an outcome, not an error.

    Raises:
        OSError: If a file is there and reading it fails.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        return list(threads.map(_scan_image, images))


def _scan_image(image: QuestionImage) -> ScannedImage:
    digest = width = height = reason = message = None
    try:
        data = read_image_bytes(image.path)
        digest = bytes_sha256(data)
        width, height = header_size(data, str(image.path))
    except ImageError as error:
        reason, message = error.reason, str(error)
    return ScannedImage(
        question_id=image.question_id,
        role=image.role,
        path=image.path,
        image_sha256=digest,
        width=width,
        height=height,
        reason=reason,
        error=message,
    )
