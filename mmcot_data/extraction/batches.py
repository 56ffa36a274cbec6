"""Which pictures of a shard are encoded together, and in which order they are looked at.

The order is the same for every encoder, so that several encoders can share one decoding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Batch", "plan_batches", "visit_order"]

_Size = tuple[int, int]
_TYPICAL_ELONGATION = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures that are encoded together."""

    positions: tuple[int, ...]
    """In the shard's part of the plan."""
    height: int
    """Of the model's input in pixels, the padding included."""
    width: int


def visit_order(sizes: Sequence[_Size | None]) -> list[int]:
    """Positions of the pictures that have a size, the most elongated ones first.

    An input that keeps the aspect ratio then has the same size as its neighbours', and the largest
    inputs, which need the most memory, come first.

    Args:
        sizes: (width, height) of each picture; None if it can't be used.
    """
    known = [(position, size) for position, size in enumerate(sizes) if size is not None]
    return [
        position
        for position, (width, height) in sorted(
            known,
            key=lambda item: (-max(item[1]) / min(item[1]), item[1][0] < item[1][1], item[0]),
        )
    ]


def plan_batches(
    sizes: Sequence[_Size | None],
    input_size: Callable[[int, int], _Size],
    *,
    batch_size: int,
    pad_to: int = 1,
) -> tuple[Batch, ...]:
    """Group pictures of equal input size.

    A batch is full with ``batch_size`` pictures; one that is more elongated than 2:1 counts for as
    many pictures as it has times their pixels, so that the memory of a batch is bounded.

    Args:
        sizes: (width, height) of each picture; None if it can't be used.
        input_size: Gives the (height, width) of the model's input for a (width, height).
        batch_size: Pictures in a batch.
        pad_to: Input sizes count as equal if they are so when rounded up to a multiple of this.

    Returns:
        The batches in the order in which ``visit_order`` completes them. Each picture with a size
        is in one of them.
    """
    visits = visit_order(sizes)
    rank = {position: number for number, position in enumerate(visits)}
    open_groups: dict[_Size, list[int]] = {}
    groups: list[tuple[_Size, list[int]]] = []
    for position in visits:
        size = sizes[position]
        assert size is not None
        height, width = (-(-side // pad_to) * pad_to for side in input_size(*size))
        group = open_groups.get((height, width))
        if group is None:
            group = open_groups[height, width] = []
            groups.append(((height, width), group))
        group.append(position)
        if (len(group) + 1) * _weight(height, width) > batch_size:
            del open_groups[height, width]
    groups.sort(key=lambda item: rank[item[1][-1]])
    return tuple(Batch(tuple(group), height, width) for (height, width), group in groups)


def _weight(height: int, width: int) -> float:
    return max(1.0, max(height, width) / (_TYPICAL_ELONGATION * min(height, width)))
