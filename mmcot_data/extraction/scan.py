"""Know every picture before one is decoded: its digest, its size, or why it can't be used."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from mmcot_data.errors import ImageError
from mmcot_data.images import bytes_sha256, header_size
from mmcot_data.sources import SourceImage, StoredImage

__all__ = ["ScannedImage", "scan_images"]

_NUM_THREADS = 4
_AHEAD = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedImage:
    """One picture that is asked for, as far as its file's bytes and header tell."""

    question_id: str
    role: str
    file: str
    """Its place within the source."""
    stored: StoredImage
    image_sha256: str | None = None
    """Hex digest of the file's bytes; None if it can't be read."""
    width: int | None = None
    """Pixels; None if the header can't be read."""
    height: int | None = None
    reason: str | None = None
    """One word if the picture can't be used; None if it can, as far as is known."""
    error: str | None = None
    """The explanation."""


def scan_images(
    images: Sequence[SourceImage], on_progress: Callable[[int, int], object] | None = None
) -> list[ScannedImage]:
    """Hash every file and read its header; the order is kept.

    A file that is missing, empty or no picture is an outcome, not an error.

    Args:
        images: The pictures.
        on_progress: Called with the number of pictures that were read and that of all.

    Raises:
        OSError: If a file is there and reading it fails.
    """
    scanned = []
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for image in _map_ahead(threads, images):
            scanned.append(image)
            if on_progress is not None:
                on_progress(len(scanned), len(images))
    return scanned


def _map_ahead(
    threads: ThreadPoolExecutor, images: Sequence[SourceImage]
) -> Iterator[ScannedImage]:
    """In chunks, so that a failing disk ends the scan at once."""
    left = iter(images)
    while chunk := list(islice(left, _AHEAD)):
        yield from threads.map(_scan_image, chunk)


def _scan_image(image: SourceImage) -> ScannedImage:
    digest = width = height = reason = message = None
    try:
        data = image.stored.read()
        digest = bytes_sha256(data)
        width, height = header_size(data, image.stored.name)
    except ImageError as error:
        reason, message = error.reason, str(error)
    return ScannedImage(
        question_id=image.question_id,
        role=image.role,
        file=image.file,
        stored=image.stored,
        image_sha256=digest,
        width=width,
        height=height,
        reason=reason,
        error=message,
    )
