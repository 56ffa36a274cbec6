"""Caption pictures: threads decode and prepare ahead, batches of equal inputs are captioned.

At any time there are in memory: the pictures that are prepared ahead, and those of batches that
are not full. None of that grows with the data set.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from mmcot_data.errors import GenerationError, ImageError
from mmcot_data.extraction.batches import visit_order
from mmcot_data.extraction.decode import decode_scanned
from mmcot_data.extraction.engine import cancelling, threads_beside
from mmcot_data.extraction.plan import usable_size
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.out_of_memory import is_out_of_memory, make_room

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
    images: Sequence[ScannedImage],
    captioner: "Captioner",
    batch_size: int,
    on_halved: Callable[[], object] = lambda: None,
) -> Iterator[list[Outcome]]:
    """Caption pictures, each by itself as far as its caption is concerned.

    A batch that does not fit into memory is captioned in two halves, and so is every further one.
    A half that does not fit is an error.

    Args:
        images: Pictures whose headers could be read, each once.
        captioner: The captioner.
        batch_size: Pictures captioned together.
        on_halved: Called for every batch that is captioned in halves.

    Yields:
        What has become of some of them, as it is known.

    Raises:
        ExtractionError: If a picture's file has changed since it was scanned.
        GenerationError: If the device has too little memory, or the model fails.
        OSError: If reading a picture fails.
    """
    groups: dict[_Shapes, _Waiting] = {}
    generation = _Generation(captioner, on_halved)

    def take(shapes: _Shapes) -> list[Outcome]:
        batch = groups.pop(shapes)
        captions = generation.caption([inputs for _, inputs in batch])
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


class _Generation:
    """Captions batches; in halves, once one did not fit into memory."""

    def __init__(self, captioner: "Captioner", on_halved: Callable[[], object]) -> None:
        self._captioner = captioner
        self._on_halved = on_halved
        self._in_halves = False

    def caption(self, batch: "list[ModelInputs]") -> list[str]:
        if not self._in_halves:
            captions = self._caption(batch)
            if captions is not None:
                return captions
            self._in_halves = True
        middle = (len(batch) + 1) // 2
        halves = [half for half in (batch[:middle], batch[middle:]) if half]
        if len(halves) > 1:
            self._on_halved()
        captions = []
        for half in halves:
            texts = self._caption(half)
            if texts is None:
                raise GenerationError(self._explain(len(batch), len(half)))
            captions += texts
        return captions

    def _caption(self, batch: "list[ModelInputs]") -> list[str] | None:
        """The captions, or None if memory was short.

        The error is forgotten here: its traceback would keep alive what the memory is needed for.
        """
        try:
            return self._captioner.caption(batch)
        except (GenerationError, RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error.__cause__ or error):
                raise
        make_room()
        return None

    def _explain(self, size: int, half: int) -> str:
        device = self._captioner.environment()["device"]
        advice = "captions that are made stay"
        if half == 1:
            return (
                f"not even one picture can be captioned in the memory of {device}: use less beams "
                f"or another --device; {advice}"
            )
        return (
            f"a batch of {size} pictures does not fit into the memory of {device}, nor does half "
            f"of it: use --batch-size {half // 2} or less beams; {advice}"
        )


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
