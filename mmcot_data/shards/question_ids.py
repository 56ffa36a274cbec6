"""The question ids of a feature set: a sequence that also finds where an id stands.

Up to 131,072 ids are kept in a list and a dict. More are packed: their text in one block, and their
hashes, sorted. That takes 20 bytes and the text an id instead of some 200, has no objects whose
reference counts would copy the memory of forked processes, and needs no library with threads of
its own, which would not survive a fork.

Shape suffixes: Q = questions, B = ids that are looked for.
"""

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from operator import eq
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import polars as pl

__all__ = ["QuestionIds", "index_ids"]

_MAX_IN_DICT = 2**17
_PART = 2**20


class QuestionIds(Sequence[str]):
    """Distinct ids; it can be pickled, and equals any sequence of the same ids."""

    @abstractmethod
    def position(self, question_id: object) -> int | None:
        """Where an id stands; None if it is absent."""

    @abstractmethod
    def find(self, question_ids: Sequence[str]) -> npt.NDArray[np.intp]:
        """Where each of several ids (B,) stands; ``len(self)`` for one that is absent.

        Raises:
            TypeError: If they are not strings.
        """

    def __contains__(self, question_id: object) -> bool:
        return self.position(question_id) is not None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        first = ", ".join(map(repr, itertools.islice(self, 3)))
        return f"<{len(self):,} question ids: {first}{', …' if len(self) > 3 else ''}>"


def index_ids(question_ids: pl.Series) -> QuestionIds:
    """Make ids findable.

    Args:
        question_ids: Strings, each of them once.
    """
    if len(question_ids) <= _MAX_IN_DICT:
        return _FewIds(question_ids.to_list())
    parts = (question_ids[start : start + _PART] for start in range(0, len(question_ids), _PART))
    text = b"".join(part.str.join("").item().encode() for part in parts)
    offsets = np.zeros(len(question_ids) + 1, np.min_scalar_type(len(text)))
    np.cumsum(question_ids.str.len_bytes().to_numpy(), out=offsets[1:])
    return _ManyIds(text, offsets)


class _FewIds(QuestionIds):
    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._positions = {name: position for position, name in enumerate(names)}

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return _FewIds, (self._names,)

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, item: int) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> list[str]: ...
    def __getitem__(self, item: int | slice) -> str | list[str]:
        return self._names[item]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def position(self, question_id: object) -> int | None:
        return self._positions.get(question_id)  # type: ignore[call-overload]

    def find(self, question_ids: Sequence[str]) -> npt.NDArray[np.intp]:
        absent = len(self)
        found = map(self._positions.get, question_ids, itertools.repeat(absent))
        positions_B = np.fromiter(found, np.intp, len(question_ids))
        if isinstance(question_ids, str) or positions_B.max(initial=0) == absent:
            _check_ids(question_ids)
        return positions_B


class _ManyIds(QuestionIds):
    """Ids as one text; the hashes only say where to compare, so that equal ones do no harm."""

    def __init__(self, text: bytes, offsets: npt.NDArray[np.unsignedinteger[Any]]) -> None:
        self._text = text
        self._offsets = offsets
        hashes_Q = np.fromiter(map(_hash, self), np.int64, len(self))
        self._order_Q = np.argsort(hashes_Q).astype(np.min_scalar_type(len(self)))
        self._hashes_Q = hashes_Q[self._order_Q]

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return _ManyIds, (self._text, self._offsets)  # hashes of strings differ between processes

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, item: int) -> str: ...
    @overload
    def __getitem__(self, item: slice) -> list[str]: ...
    def __getitem__(self, item: int | slice) -> str | list[str]:
        positions = range(len(self))[item]
        if isinstance(positions, int):
            return self._text[self._offsets[positions] : self._offsets[positions + 1]].decode()
        return self._take(np.asarray(positions, np.intp))

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(self._parts())

    def _parts(self) -> Iterator[list[str]]:
        for start in range(0, len(self), _PART):
            offsets = self._offsets[start : start + _PART + 1]
            text = self._text[offsets[0] : offsets[-1]]
            bounds = itertools.pairwise((offsets - offsets[0]).tolist())
            if text.isascii():  # then a place among the bytes is one among the letters
                letters = text.decode()
                yield [letters[i:j] for i, j in bounds]
            else:
                yield [text[i:j].decode() for i, j in bounds]

    def position(self, question_id: object) -> int | None:
        if not isinstance(question_id, str):
            return None
        wanted = _hash(question_id)
        place = int(np.searchsorted(self._hashes_Q, wanted))
        while place < len(self) and self._hashes_Q[place] == wanted:
            position = int(self._order_Q[place])
            if self[position] == question_id:
                return position
            place += 1
        return None

    def find(self, question_ids: Sequence[str]) -> npt.NDArray[np.intp]:
        _check_ids(question_ids)
        positions_B = np.full(len(question_ids), len(self))
        wanted = np.fromiter(map(_hash, question_ids), np.int64, len(question_ids))
        places = np.searchsorted(self._hashes_Q, wanted)
        items = np.arange(len(question_ids))
        while len(items):  # once, but for ids that share a hash
            same = self._hashes_Q.take(places, mode="clip") == wanted[items]
            same &= places < len(self)
            items, places = items[same], places[same]
            candidates = self._order_Q[places]
            names = map(question_ids.__getitem__, items.tolist())
            equal = np.fromiter(map(eq, self._take(candidates), names), np.bool_, len(items))
            positions_B[items[equal]] = candidates[equal]
            items, places = items[~equal], places[~equal] + 1
        return positions_B

    def _take(self, positions: npt.NDArray[np.integer[Any]]) -> list[str]:
        text = self._text
        starts, stops = self._offsets[positions], self._offsets[positions + 1]
        return [text[i:j].decode() for i, j in zip(starts.tolist(), stops.tolist(), strict=True)]


_hash: Callable[[str], int] = hash


def _check_ids(question_ids: Sequence[str]) -> None:
    """Refuse what can't be ids, which would pass for questions without features."""
    is_text = isinstance(question_ids, str)
    if is_text or not all(isinstance(question_id, str) for question_id in question_ids):
        raise TypeError(
            f'question ids are {question_ids!r:.100}, expected a list of strings, as ["42", "7"]'
        )
