"""Encode batches as they become ready; one that does not fit into memory, in halves.

Shape suffixes: B = batch, C = channels, H, W = pixels, P = patches, D = feature width.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from mmcot_data.encoders.base import Encoder
from mmcot_data.errors import EncoderError
from mmcot_data.extraction.decode import DecodedImage
from mmcot_data.extraction.shard import ReadyBatch, ShardInProgress
from mmcot_data.out_of_memory import is_out_of_memory, make_room

__all__ = ["Encoding", "Progress"]

Progress = Callable[[int], object]
"""Called with the number of rows that have been done since the last call."""

_Result = TypeVar("_Result")

_MAX_STARTED = 1


@dataclass(frozen=True, slots=True)
class _Started:
    """A batch that is being encoded."""

    shard: ShardInProgress
    batch: ReadyBatch
    wait: Callable[[], torch.Tensor]


class Encoding:
    """Encodes batches as they become ready; the next one is started before one is waited for.

    A batch that does not fit into memory is encoded in two halves, when nothing else is in flight,
    and so is every further batch of its shard. A half that does not fit is an error.

    Args:
        on_progress: Called as pictures are done.
    """

    def __init__(self, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self._started: deque[_Started] = deque()
        self._open: list[ShardInProgress] = []

    def open(
        self, groups: Iterable[Sequence[ShardInProgress]]
    ) -> Iterator[Sequence[ShardInProgress]]:
        """The same groups; their shards are watched from now on."""
        for shards in groups:
            self._open += shards
            self._on_progress(sum(shard.num_done for shard in shards))
            yield shards

    def add(self, shard: ShardInProgress, position: int, image: DecodedImage) -> None:
        """Take what became of a picture.

        Raises:
            EncoderError: If not even half a batch fits into memory, or the encoder's output does
                not fit its description.
            ShardError: If features are not finite.
        """
        before = shard.num_done
        shard.add(position, image)
        self._on_progress(shard.num_done - before)
        for batch in shard.ready_batches():
            if shard.num_halved:
                self._encode_halves(shard, batch)
            else:
                self._start(shard, batch)

    def finish(self) -> None:
        """Wait for what has been started."""
        while self._started:
            self._finish_oldest()

    def take_done(self) -> list[ShardInProgress]:
        """The shards that have become done since the last call."""
        done = [shard for shard in self._open if shard.is_done]
        self._open = [shard for shard in self._open if not shard.is_done]
        return done

    def _start(self, shard: ShardInProgress, batch: ReadyBatch) -> None:
        wait = _unless_out_of_memory(lambda: shard.encoder.start(batch.pixels_BCHW, batch.sizes))
        if wait is None:
            self._encode_halves(shard, batch)
            return
        self._started.append(_Started(shard, batch, wait))
        while len(self._started) > _MAX_STARTED:
            self._finish_oldest()

    def _finish_oldest(self) -> None:
        oldest = self._started.popleft()
        features_BPD = _unless_out_of_memory(oldest.wait)
        if features_BPD is None:
            self._encode_halves(oldest.shard, oldest.batch)
        else:
            self._store(oldest.shard, oldest.batch, features_BPD)

    def _encode_halves(self, shard: ShardInProgress, batch: ReadyBatch) -> None:
        """Encode the halves of a batch one after the other, each alone in memory."""
        self.finish()
        if not shard.num_halved:  # later batches are not tried whole: nothing has failed since
            make_room()
        shard.num_halved += 1
        for half in batch.halves():
            features_BPD = _encode(shard.encoder, half)
            if features_BPD is None:
                raise EncoderError(_explain_out_of_memory(shard, batch, half))
            self._store(shard, half, features_BPD)

    def _store(self, shard: ShardInProgress, batch: ReadyBatch, features_BPD: torch.Tensor) -> None:
        shard.store(batch.positions, features_BPD)
        self._on_progress(len(batch.positions))


def _encode(encoder: Encoder, batch: ReadyBatch) -> torch.Tensor | None:
    """Features (B, P, D), or None if memory was short."""
    return _unless_out_of_memory(lambda: encoder.start(batch.pixels_BCHW, batch.sizes)())


def _unless_out_of_memory(work: Callable[[], _Result]) -> _Result | None:
    """None if memory was short.

    The error is forgotten here: its traceback would keep alive what the memory is needed for.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def _explain_out_of_memory(shard: ShardInProgress, batch: ReadyBatch, half: ReadyBatch) -> str:
    _, _, height, width = batch.pixels_BCHW.shape
    device = shard.encoder.environment()["device"]
    size = f"{height} x {width} pixels"
    if len(half.positions) == 1:
        return (
            f"{shard.encoder.name}: not even one picture of {size} fits into the memory of "
            f"{device}; free memory on it, or choose another --device"
        )
    return (
        f"{shard.encoder.name}: a batch of {len(batch.positions)} pictures of {size} does not fit "
        f"into the memory of {device}, nor does half of it; found {shard.task.batch_size} as batch "
        f"size, run again with --batch-size {max(1, len(half.positions) // 2)}, or free memory "
        "on the device"
    )
