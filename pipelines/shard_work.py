"""One shard as a process makes it that got it from a flow: a thread's, a Dask or a Ray worker.

A worker loads the encoder once and keeps it; it makes one shard at a time, as its device does.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from mmcot_data.encoders import Encoder, EncoderConfig
from mmcot_data.extraction import ExtractionPlan, ShardTask, extract_shard, load_planned_encoder
from mmcot_data.out_of_memory import make_room

__all__ = ["WorkedShard", "forget_encoder", "keep_encoder", "make_shard", "planned_encoder"]

_Key = tuple[EncoderConfig, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkedShard:
    """What a flow is told of a complete shard."""

    file: str
    rows: int
    failed: int
    """Pictures without features."""
    nbytes: int
    seconds: float
    """That it took, without loading the encoder."""
    halved_batches: int
    """Batches that were encoded in two halves, for want of memory."""
    is_new: bool
    """Whether this process made it; False if it was complete already."""

    @property
    def pictures_per_second(self) -> float:
        """Pictures with and without features."""
        return (self.rows + self.failed) / self.seconds


class _KeptEncoder:
    """The encoder of the last shard, or of the plan that this process made."""

    def __init__(self) -> None:
        self._key: _Key | None = None
        self._encoder: Encoder | None = None

    def keep(self, key: _Key, encoder: Encoder) -> None:
        self._key, self._encoder = key, encoder

    def forget(self) -> None:
        self._key = self._encoder = None

    def of(self, planned: ExtractionPlan | ShardTask) -> Encoder:
        """The encoder that is planned; another one is given up before it is loaded."""
        key = _key(planned)
        if self._encoder is None or self._key != key:
            self.forget()
            self.keep(key, load_planned_encoder(planned))
        assert self._encoder is not None
        return self._encoder


_kept = _KeptEncoder()
_one_at_a_time = threading.Lock()


def keep_encoder(plan: ExtractionPlan, encoder: Encoder) -> None:
    """Let the encoder that a plan was made with make its shards, too, in this process."""
    with _one_at_a_time:
        _kept.keep(_key(plan), encoder)


def planned_encoder(plan: ExtractionPlan) -> Encoder:
    """The encoder of a plan: the one that is kept, or else loaded and kept."""
    with _one_at_a_time:
        return _kept.of(plan)


def forget_encoder() -> None:
    """Give up the encoder that is kept, and its memory."""
    with _one_at_a_time:
        _kept.forget()
        make_room()


def make_shard(
    task: ShardTask,
    on_progress: Callable[[int, int], object] | None = None,
    find_device: Callable[[], str] | None = None,
) -> WorkedShard | None:
    """Make a shard, unless another process makes it.

    Args:
        task: The shard.
        on_progress: Called with its pictures that are done, and all of them.
        find_device: Says which device is to be used, where that is decided task by task.

    Returns:
        What it holds; None if another process makes it.

    Raises:
        EncoderError: As ``load_encoder`` and ``extract_shard``.
        ExtractionError: As ``extract_shard``.
        OSError: If reading a picture or writing the shard fails.
        ShardError: If features are not finite.
        SpecMismatchError: If this machine's encoder is not the plan's.
    """
    is_new = False

    def report(done: int, total: int) -> None:  # it is not called for a shard that is complete
        nonlocal is_new
        is_new = True
        if on_progress is not None:
            on_progress(done, total)

    with _one_at_a_time:
        if find_device is not None:
            settings = replace(task.config.encoder, device=find_device())
            task = replace(task, config=replace(task.config, encoder=settings))
        encoder = _kept.of(task)
        start = time.perf_counter()
        commit = extract_shard(task, encoder, report, wait=False)
    if commit is None:
        return None
    return WorkedShard(
        file=commit.shard.file,
        rows=commit.shard.rows,
        failed=commit.shard.failed,
        nbytes=commit.shard.file_nbytes,
        seconds=time.perf_counter() - start,
        halved_batches=commit.made_by.get("halved_batches", 0),
        is_new=is_new,
    )


def _key(planned: ExtractionPlan | ShardTask) -> _Key:
    return planned.config.encoder, planned.spec.precision
