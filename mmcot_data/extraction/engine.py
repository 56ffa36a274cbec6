"""Make shards: threads decode ahead, batches are encoded when they are complete, a thread writes.

At any time there are in memory: the pictures that are decoded ahead and those of batches that are
not complete, the batch that is encoded and the one before, and the shards that are being filled or
written. None of that grows with the data set.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from mmcot_data.encoders.base import Encoder
from mmcot_data.extraction.batches import visit_order
from mmcot_data.extraction.decode import DecodedImage, decode_image
from mmcot_data.extraction.encoding import Encoding, Progress
from mmcot_data.extraction.plan import usable_size
from mmcot_data.extraction.scan import ScannedImage
from mmcot_data.extraction.shard import ShardInProgress

__all__ = ["cancelling", "decode_threads", "make_shards", "threads_beside"]

_MAX_WRITES = 2
_MAX_DECODE_THREADS = 32


def decode_threads(encoders: Sequence[Encoder]) -> int:
    """Threads that keep up with the encoders."""
    return threads_beside(
        on_cpu=all(encoder.environment()["device"] == "cpu" for encoder in encoders)
    )


def threads_beside(*, on_cpu: bool) -> int:
    """Threads that decode for models: Pillow needs no Python while it decodes.

    Models that run on the CPU need its cores themselves; beside a GPU nearly all are free.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = (cores or 1) // 4 if on_cpu else (cores or 1) - 2
    return min(max(2, wanted), _MAX_DECODE_THREADS)


def make_shards(
    groups: Iterable[Sequence[ShardInProgress]],
    *,
    num_threads: int,
    on_progress: Progress,
    on_written: Callable[[ShardInProgress], object] = lambda _: None,
) -> None:
    """Make shards group by group; the shards of a group share the decoding of their pictures.

    Args:
        groups: Shards of several encoders, of about the same pictures. The next group is asked
            for while the pictures of the one before are being encoded.
        num_threads: That decode.
        on_progress: Called as pictures are done.
        on_written: Called when a shard and its commit record are written, from another thread.

    Raises:
        ExtractionError: If a picture's file has changed since it was scanned.
        EncoderError: If an encoder's output does not fit its description, or not even half a batch
            fits into memory.
        OSError: If reading a picture or writing a shard fails.
        ShardError: If features are not finite. Nothing half-written stays.
    """
    encoding = Encoding(on_progress)

    def write(shard: ShardInProgress) -> None:
        shard.write()
        on_written(shard)

    with ThreadPoolExecutor(1) as writer, cancelling(ThreadPoolExecutor(num_threads)) as decoders:
        writes: deque[Future[None]] = deque()

        def write_done() -> None:
            for shard in encoding.take_done():
                writes.append(writer.submit(write, shard))
            while writes and (writes[0].done() or len(writes) > _MAX_WRITES):
                writes.popleft().result()

        for visit, images in _decode_ahead(encoding.open(groups), decoders, 2 * num_threads):
            for (shard, position), image in zip(visit.targets, images, strict=True):
                encoding.add(shard, position, image)
            write_done()
        encoding.finish()
        write_done()
        for future in writes:
            future.result()


@dataclass(frozen=True, slots=True)
class _Visit:
    """A picture, and all the shards that it is to be a row of, with its place in each."""

    image: ScannedImage
    targets: tuple[tuple[ShardInProgress, int], ...]


def _decode_ahead(
    groups: Iterable[Sequence[ShardInProgress]], decoders: ThreadPoolExecutor, min_ahead: int
) -> Iterator[tuple[_Visit, tuple[DecodedImage, ...]]]:
    """What becomes of each picture, in the order of the visits; threads decode the next ones."""
    queue: deque[tuple[_Visit, Future[tuple[DecodedImage, ...]]]] = deque()
    for shards in groups:
        num_ahead = max(min_ahead, *(2 * shard.task.batch_size for shard in shards))
        alpha = shards[0].task.config.encoder.alpha
        for visit in _visits(shards):
            encoders = [shard.encoder for shard, _ in visit.targets]
            queue.append((visit, decoders.submit(decode_image, visit.image, encoders, alpha)))
            if len(queue) > num_ahead:
                oldest, future = queue.popleft()
                yield oldest, future.result()
    while queue:
        oldest, future = queue.popleft()
        yield oldest, future.result()


def _visits(shards: Sequence[ShardInProgress]) -> Iterator[_Visit]:
    """Every usable picture of the shards once, in an order that completes batches one by one."""
    targets: dict[str, list[tuple[ShardInProgress, int]]] = {}
    images: dict[str, ScannedImage] = {}
    for shard in shards:
        for position, image in enumerate(shard.shard.images):
            if image.image_sha256 is not None and image.reason is None:
                images.setdefault(image.image_sha256, image)
                targets.setdefault(image.image_sha256, []).append((shard, position))
    distinct = list(images)
    for number in visit_order([usable_size(images[digest]) for digest in distinct]):
        digest = distinct[number]
        yield _Visit(images[digest], tuple(targets[digest]))


@contextmanager
def cancelling(executor: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Do not begin what an error or an interrupt has made pointless."""
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
