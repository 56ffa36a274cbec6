"""Read a feature set by question id.

Shape suffixes: B = batch, R = pictures side by side, P = patches of a question (R times those of a
row), D = feature width.
"""

import resource
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mmcot_data.shards.index import PLACES
from mmcot_data.shards.mapped import Check
from mmcot_data.shards.places import find_places
from mmcot_data.shards.schema import FeatureSpec
from mmcot_data.shards.store import ShardStore, open_store

__all__ = ["FeatureSet", "open_features"]

_AHEAD_NBYTES = 64 * 2**20
_AHEAD_BATCHES = 64
_HINTED_BATCHES = 256
_WATCHED = 16


def open_features(
    path: str | Path,
    *,
    roles: Sequence[str] | Literal["all"] = ("question",),
    combine: Literal["first", "all"] = "first",
    expect: FeatureSpec | Mapping[str, Any] | None = None,
    check: Check = "rows",
    cache: Path | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> "FeatureSet":
    """Open a finished feature set; no shard is touched before its first row is asked for.

    Args:
        path: The feature set's folder, such as ``shards/detr``, or its URL, such as
            ``s3://bucket/shards/detr`` or ``https://host/detr`` (needs ``mmcot[cloud]``).
        roles: Image roles in the order of preference. ``all``: every role that the index has.
        combine: ``first``: a question is given the features of the first of the roles that it has;
            Multimodal-CoT did so with ``("question", "choice_0")``. ``all``: it is given those of
            all the roles, side by side in the order of ``roles``.
        expect: Spec that the features must have, or some of its fields, as
            ``{"encoder": "detr", "revision": "1b3e7c2"}``.
        check: ``rows`` compares each shard's header when it is opened, and each row when it is
            first read, with their checksums; ``size`` only compares the files' sizes.
        cache: Folder in which files of a URL are kept; by default ``$MMCOT_CACHE`` or
            ``~/.cache/mmcot``. A file is downloaded when it is first needed, and its sha256 is
            compared.
        storage_options: For fsspec, as ``{"anon": True}``; credentials are found as usual.

    Raises:
        ShardError: If the folder is unfinished, damaged, or of another format version.
        SpecMismatchError: If the features are not what ``expect`` says; lists what differs.
        ValueError: If ``roles``, ``combine`` or ``check`` is not one of those that are possible.
    """
    store = open_store(
        path, expect=expect, check=check, cache=cache, storage_options=storage_options
    )
    return FeatureSet(store, roles=roles, combine=combine)


class FeatureSet:
    """Patch features by question id, memory-mapped; made by ``open_features``.

    It can be pickled, and used in threads and in forked or spawned processes.

    Args:
        store: The opened shards.
        roles: As for ``open_features``.
        combine: As for ``open_features``.
    """

    def __init__(
        self,
        store: ShardStore,
        *,
        roles: Sequence[str] | Literal["all"] = ("question",),
        combine: Literal["first", "all"] = "first",
    ) -> None:
        self.spec = store.spec
        self._mapped = store.mapped
        self._places = find_places(store.read_index(PLACES), store.mapped, roles, combine)
        P = self.spec.num_patches
        self._masks = np.arange(P) < np.arange(P + 1)[:, None]
        self._hinted_batches = self._num_copied = 0

    def __len__(self) -> int:
        return len(self._places.positions)

    def __contains__(self, question_id: object) -> bool:
        return question_id in self._places.positions

    def __iter__(self) -> Iterator[str]:
        return iter(self._places.positions)

    @property
    def question_ids(self) -> Sequence[str]:
        """Ids of the questions that have features, in the order of the index; not copied."""
        return self._places.positions

    @property
    def roles(self) -> tuple[str, ...]:
        """The image roles that were asked for, in their order."""
        return self._places.roles

    @property
    def row_shape(self) -> tuple[int, int]:
        """(P, D): the shape of one question's features."""
        return self._places.rows_QR.shape[1] * self.spec.num_patches, self.spec.feature_dim

    def __getitem__(self, question_id: str) -> npt.NDArray[np.floating[Any]]:
        """The features (P, D) of one question; a read-only view of the file if R is 1.

        Raises:
            KeyError: If the question has no features.
            ShardError: If a shard is absent or damaged.
        """
        position = self._places.positions.position(question_id)
        if position is None:
            raise KeyError(
                f"question {question_id!r} has no features in this feature set; ids are strings"
            )
        rows_R = self._places.rows_QR[position]
        if len(rows_R) > 1:
            return self.gather([question_id])[0][0]
        self._mapped.prepare(rows_R)
        return self._mapped.rows[rows_R[0]]

    def role_mask(self, question_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which pictures each question has: (B, R), in the order of ``roles`` if all are read."""
        positions = self._places.positions.find(question_ids)
        return self._places.rows_QR[positions] != self._mapped.zero

    def gather(
        self, question_ids: Sequence[str], out: npt.NDArray[np.floating[Any]] | None = None
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]:
        """Features of several questions, copied into one array.

        Rows that are read for the first time are asked of the disk all at once before the first of
        them is copied.

        Args:
            question_ids: Ids in the order wanted; one may occur more than once. An id without
                features gives zeros and a mask that is false.
            out: Array (B, P, D) of the stored dtype to fill; reusing one saves its allocation.

        Returns:
            Features (B, P, D) in the stored dtype, and the mask (B, P) of valid patches.

        Raises:
            TypeError: If an id is not a string.
            ValueError: If ``out`` has another shape or dtype.
            ShardError: If a shard is absent or damaged.
        """
        shape = (len(question_ids), *self.row_shape)
        if out is None:
            out = np.empty(shape, self._mapped.dtype)
        elif out.shape != shape or out.dtype != self._mapped.dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"out is {out.dtype}{out.shape}, expected a contiguous {self.spec.dtype}{shape}"
            )
        positions = self._places.positions.find(question_ids)
        rows = self._places.rows_QR[positions].ravel()
        if self._hinted_batches > 0:
            self._hinted_batches -= 1
            self._mapped.will_need(rows, again=True)
        self._copy(rows, out.reshape(-1, *self.spec.row_shape))
        mask_BRP = self._masks[self._places.num_patches_QR[positions]]
        return out, mask_BRP.reshape(shape[:2])

    def batches(
        self, question_ids: Sequence[str], batch_size: int
    ) -> Iterator[tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]]:
        """What ``gather`` gives, for consecutive parts of ``question_ids``.

        Rows are asked of the disk some batches before they are copied.

        Args:
            question_ids: Ids in the order wanted.
            batch_size: Questions in a batch; the last one may hold fewer.

        Raises:
            ValueError: If the batch size is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        parts = (
            question_ids[start : start + batch_size]
            for start in range(0, len(question_ids), batch_size)
        )
        return (self.gather(part) for part in self.ahead(parts))

    def ahead(self, batches: Iterable[Sequence[str]]) -> Iterator[Sequence[str]]:
        """The same batches of ids, each with a head start for the disk.

        The rows of the following batches, of 64 MiB or 64 batches, are asked of the disk before a
        batch is given.
        """
        queue: deque[Sequence[str]] = deque()
        nbytes = 0
        row_nbytes = int(np.prod(self.row_shape)) * np.dtype(self.spec.dtype).itemsize
        for batch in batches:
            rows = self._places.rows_QR[self._places.positions.find(batch)].ravel()
            self._mapped.will_need(rows, again=self._hinted_batches > 0)
            queue.append(batch)
            nbytes += len(batch) * row_nbytes
            while nbytes > _AHEAD_NBYTES or len(queue) > _AHEAD_BATCHES:
                nbytes -= len(queue[0]) * row_nbytes
                yield queue.popleft()
        yield from queue

    def _copy(self, rows: npt.NDArray[np.int64], rows_NPD: npt.NDArray[np.floating[Any]]) -> None:
        """Where rows that were read before have left the memory, hint at all rows for a while."""
        self._num_copied += 1
        watched = self._num_copied % _WATCHED == 0
        faults = _num_major_faults() if watched else 0
        self._mapped.take(rows, rows_NPD)
        if watched and _num_major_faults() > faults:
            self._hinted_batches = _HINTED_BATCHES


def _num_major_faults() -> int:
    """Page faults of this thread, or elsewhere than on Linux this process, that met the disk."""
    who = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
    return resource.getrusage(who).ru_majflt
