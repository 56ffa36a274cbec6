"""Caption pictures: threads decode and prepare ahead, batches of equal inputs are captioned.

At any time there are in memory: the pictures that are prepared ahead, and those of batches that
are not full. None of that grows with the data set.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from mmcot_data.errors import ImageError
from mmcot_data.extraction.batches import visit_order
from mmcot_data.extraction.decode import decode_scanned
from mmcot_data.extraction.engine import cancelling, threads_beside
from mmcot_data.extraction.plan import usable_size
from mmcot_data.extraction.scan import ScannedImage

if TYPE_CHECKING:
    from mmcot_data.captioning.captioner import Captioner
    from mmcot_data.captioning.inputs import ModelInputs

__all__ = ["Outcome", "find_batch_size", "generate_captions"]

Outcome = tuple[ScannedImage, str | ImageError]
"""A picture with its caption, or why there is none."""

_BATCH_SIZE_CPU, _BATCH_SIZE_GPU = 8, 16
_MAX_WAITING = 8
"""Prepared pictures that wait for others of equal inputs, in batches."""

_Shapes = tuple[tuple[str, tuple[int, ...]], ...]
_Waiting = list[tuple[ScannedImage, "ModelInputs"]]


def find_batch_size(batch_size: int | None, captioner: "Captioner") -> int:
    """Pictures captioned together: as asked for, or what suits the device."""
    return batch_size or (_BATCH_SIZE_CPU if captioner.is_on_cpu else _BATCH_SIZE_GPU)


def generate_captions(
    images: Sequence[ScannedImage], captioner: "Captioner", batch_size: int
) -> Iterator[list[Outcome]]:
    """Caption pictures, each by itself as far as its caption is concerned.

    Args:
        images: Pictures whose headers could be read, each once.
        captioner: The captioner.
        batch_size: Pictures captioned together.

    Yields:
        What has become of some of them, as it is known.

    Raises:
        ExtractionError: If a picture's file has changed since it was scanned.
        GenerationError: If the device has too little memory, or the model fails.
        OSError: If reading a picture fails.
    """
    groups: dict[_Shapes, _Waiting] = {}

    def take(shapes: _Shapes) -> list[Outcome]:
        batch = groups.pop(shapes)
        captions = captioner.caption([inputs for _, inputs in batch])
        return [(image, text) for (image, _), text in zip(batch, captions, strict=True)]

    for image, prepared in _prepare_ahead(images, captioner, 2 * batch_size):
        if isinstance(prepared, ImageError):
            yield [(image, prepared)]
            continue
        shapes = tuple((name, tuple(prepared[name].shape)) for name in sorted(prepared))
        groups.setdefault(shapes, []).append((image, prepared))
        if len(groups[shapes]) == batch_size:
            yield take(shapes)
        elif sum(map(len, groups.values())) > _MAX_WAITING * batch_size:
            yield take(max(groups, key=lambda shapes: len(groups[shapes])))
    while groups:
        yield take(next(iter(groups)))


def _prepare_ahead(
    images: Sequence[ScannedImage], captioner: "Captioner", num_ahead: int
) -> "Iterator[tuple[ScannedImage, ModelInputs | ImageError]]":
    """The pictures in an order that lets those of equal shape follow each other."""
    num_threads = threads_beside(on_cpu=captioner.is_on_cpu)
    queue: deque[tuple[ScannedImage, Future[ModelInputs | ImageError]]] = deque()
    with cancelling(ThreadPoolExecutor(num_threads)) as threads:
        for position in visit_order([usable_size(image) for image in images]):
            queue.append((images[position], threads.submit(_prepare, images[position], captioner)))
            if len(queue) > max(num_ahead, 2 * num_threads):
                image, future = queue.popleft()
                yield image, future.result()
        while queue:
            image, future = queue.popleft()
            yield image, future.result()


def _prepare(image: ScannedImage, captioner: "Captioner") -> "ModelInputs | ImageError":
    try:
        return captioner.prepare(decode_scanned(image, captioner.alpha))
    except ImageError as error:
        return error
