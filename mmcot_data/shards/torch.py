"""Patch features for PyTorch: a data set for ``DataLoader``, and a loader of its own.

    loader = FeatureLoader(open_features("shards/detr"), RandomBatches(question_ids, 32))
    for question_ids, features_BPD, mask_BP in loader: ...

The loader reads in a thread and uses its buffers again. Worker processes, as ``DataLoader`` offers
them, are possible and slower: each batch is copied once more, into memory that is new each time.

Shape suffixes: B = batch, P = patches, D = feature width.
"""

import queue
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from mmcot_data.shards.question_ids import QuestionIds
from mmcot_data.shards.reader import FeatureSet

__all__ = ["FeatureBatch", "FeatureLoader", "PatchFeatures", "RandomBatches"]

_T = TypeVar("_T")
_NUM_AHEAD = 2
_NUM_BUFFERS = _NUM_AHEAD + 4  # one is filled, one handed over, one looked at, one let go


class PatchFeatures(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Features and mask of a list of questions, for ``DataLoader``.

        DataLoader(PatchFeatures(features), batch_size=32, collate_fn=PatchFeatures.collate)

    Without this ``collate_fn`` DataLoader stacks features and masks, and fails with "stack expects
    each tensor to be equal size".

    Args:
        features: The feature set.
        question_ids: The questions, in the order of the data set; all that have features if None.
            One without features gives zeros and a mask that is false.
    """

    def __init__(self, features: FeatureSet, question_ids: Sequence[str] | None = None) -> None:
        self.features = features
        self.question_ids = features.question_ids if question_ids is None else list(question_ids)

    def __len__(self) -> int:
        return len(self.question_ids)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (P, D) in the stored dtype and mask (P,) of one question."""
        features_BPD, mask_BP = self.__getitems__([index])
        return features_BPD[0], mask_BP[0]

    def __getitems__(self, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """A finished batch: features (B, P, D) and mask (B, P); DataLoader calls this."""
        features_BPD, mask_BP = self.features.gather([self.question_ids[i] for i in indices])
        return torch.from_numpy(features_BPD), torch.from_numpy(mask_BP)

    @staticmethod
    def collate(batch: _T) -> _T:
        """For DataLoader's ``collate_fn``: what ``__getitems__`` gives is a batch already."""
        return batch


class RandomBatches:
    """Question ids in batches; each iteration has another order, which the seed decides.

    Args:
        question_ids: The questions; ``features.question_ids`` are not copied.
        batch_size: Questions in a batch.
        seed: Of the orders.
        drop_last: Leave out a last batch that is smaller.

    Raises:
        ValueError: If the batch size is not positive.
    """

    def __init__(
        self,
        question_ids: Sequence[str],
        batch_size: int,
        *,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        is_fixed = isinstance(question_ids, QuestionIds)
        self.question_ids = question_ids if is_fixed else list(question_ids)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._random = np.random.default_rng(seed)

    def __len__(self) -> int:
        num_full, rest = divmod(len(self.question_ids), self.batch_size)
        return num_full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[str]]:
        order = self._random.permutation(len(self.question_ids))
        for batch in range(len(self)):
            part = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [self.question_ids[i] for i in part.tolist()]


class FeatureBatch(NamedTuple):
    """A batch of questions."""

    question_ids: Sequence[str]
    features_BPD: torch.Tensor
    """In the stored dtype."""
    mask_BP: torch.Tensor
    """True at valid patches."""


class FeatureLoader:
    """Batches that a thread has read before they are asked for.

    A buffer is used again as soon as nothing refers to its batch any more; a batch that is kept
    stays what it was. For a CUDA device the buffers are pinned, and batches are copied to it while
    the next ones are read.

    Args:
        features: The feature set.
        batches: Question ids of every batch, as a list of lists or ``RandomBatches``; it is
            iterated once each time that the loader is, some batches ahead.
        device: Where the batches are wanted; None leaves them in memory.
    """

    def __init__(
        self,
        features: FeatureSet,
        batches: Iterable[Sequence[str]],
        *,
        device: torch.device | str | None = None,
    ) -> None:
        self.features = features
        self.batches = batches
        self.device = torch.device("cpu" if device is None else device)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Generator[FeatureBatch]:
        buffers = _Buffers(self.features, pinned=self.device.type == "cuda")
        ready: queue.Queue[_Read | BaseException | None] = queue.Queue(_NUM_AHEAD)
        stop = threading.Event()
        reader = threading.Thread(
            target=self._read, args=(buffers, ready, stop), name="mmcot-features", daemon=True
        )
        reader.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                batch = item.to(self.device)
                del item
                yield batch
                del batch
        finally:
            stop.set()
            while reader.is_alive():
                _drain(ready)
                reader.join(0.01)

    def _read(
        self,
        buffers: "_Buffers",
        ready: "queue.Queue[_Read | BaseException | None]",
        stop: threading.Event,
    ) -> None:
        try:
            for question_ids in self.features.ahead(self.batches):
                if stop.is_set():
                    return
                buffer = buffers.take(len(question_ids))
                out = buffer.array[: len(question_ids)]
                _, mask_BP = self.features.gather(question_ids, out)
                ready.put(_Read(question_ids, buffer, out, mask_BP))
                del buffer, out, mask_BP
            ready.put(None)
        except BaseException as error:  # raised again in the thread that asked for the batch
            ready.put(error)


class _Buffer:
    """Memory for a batch."""

    def __init__(self, shape: tuple[int, ...], dtype: str, *, pinned: bool) -> None:
        self.copied: torch.cuda.Event | None = None  # when the device has its batch
        self.pinned: torch.Tensor | None = None
        if pinned:
            self.pinned = torch.empty(shape, dtype=getattr(torch, dtype), pin_memory=True)
            self.array: npt.NDArray[Any] = self.pinned.numpy()
        else:
            self.array = np.empty(shape, dtype)


class _Buffers:
    """A few buffers, each taken only when nobody holds its batch any more."""

    def __init__(self, features: FeatureSet, *, pinned: bool) -> None:
        self._row_shape = features.row_shape
        self._dtype = features.spec.dtype
        self._pinned = pinned
        self._free: list[_Buffer] = []

    def take(self, batch_size: int) -> _Buffer:
        for buffer in self._free:
            if len(buffer.array) >= batch_size and self._is_unused(buffer):
                buffer.copied = None
                return buffer
        buffer = _Buffer((batch_size, *self._row_shape), self._dtype, pinned=self._pinned)
        self._free = [*self._free, buffer][-_NUM_BUFFERS:]
        return buffer

    def _is_unused(self, buffer: _Buffer) -> bool:
        if self._pinned:
            return buffer.copied is not None and buffer.copied.query()
        # A batch's tensors refer to the array; the buffer's own and getrefcount's reference remain.
        return sys.getrefcount(buffer.array) == 2


class _Read(NamedTuple):
    question_ids: Sequence[str]
    buffer: _Buffer
    out_BPD: npt.NDArray[Any]
    mask_BP: npt.NDArray[np.bool_]

    def to(self, device: torch.device) -> FeatureBatch:
        mask_BP = torch.from_numpy(self.mask_BP)
        if self.buffer.pinned is None:
            features_BPD = torch.from_numpy(self.out_BPD)
        else:
            features_BPD = self.buffer.pinned[: len(self.out_BPD)]
        on_device = FeatureBatch(
            self.question_ids,
            features_BPD.to(device, non_blocking=True),
            mask_BP.to(device, non_blocking=True),
        )
        if self.buffer.pinned is not None:
            copied = torch.cuda.Event()
            copied.record(torch.cuda.current_stream(device))
            self.buffer.copied = copied
        return on_device


def _drain(ready: "queue.Queue[Any]") -> None:
    try:
        while True:
            ready.get_nowait()
    except queue.Empty:
        pass
