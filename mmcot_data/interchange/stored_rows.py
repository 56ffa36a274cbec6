"""The rows of a feature set that an export writes, each read through its checksum.

Shape suffixes: Q = questions, R = rows of a part, P = patches, D = feature width.
"""

import glob
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.shards.places import find_places
from mmcot_data.shards.store import ShardStore

__all__ = ["REFERENCE_ROLES", "QuestionRows", "choose_rows", "read_rows", "refuse_existing"]

REFERENCE_ROLES = ("question", "choice_0")
"""Multimodal-CoT's rule: the question's picture, else its first choice's."""

_PART_NBYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class QuestionRows:
    """One picture for each question that has one, in the order of the index."""

    question_ids: list[str]
    rows_Q: npt.NDArray[np.int64]
    """Rows of ``ShardStore.mapped``; questions may share one."""
    num_patches_Q: npt.NDArray[np.int32]


def choose_rows(store: ShardStore, roles: Sequence[str]) -> QuestionRows:
    """Choose each question's picture.

    Args:
        store: The opened feature set.
        roles: Image roles; the first that a question has counts.

    Raises:
        ShardError: If no question has a picture of these roles.
    """
    places = find_places(store.read_index(), store.mapped, roles, "first")
    if not places.positions:
        raise ShardError(
            f"{store.location} has no features for the image roles {', '.join(roles)}; choose "
            "others with --roles"
        )
    return QuestionRows(
        list(places.positions), places.rows_QR[:-1, 0], places.num_patches_QR[:-1, 0]
    )


def read_rows(
    store: ShardStore, rows: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[np.floating[Any]]]:
    """Features (R, P, D) of rows of ``store.mapped``, part by part of about 16 MiB.

    Raises:
        ShardError: If a shard or a row is damaged.
    """
    mapped = store.mapped
    size = max(1, _PART_NBYTES // (math.prod(store.spec.row_shape) * mapped.dtype.itemsize))
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        mapped.prepare(part)
        yield mapped.rows.take(part, axis=0)


def refuse_existing(path: Path) -> None:
    """Never write over what is there, but remove what a killed export to it left half-written.

    Raises:
        ShardError: If the path exists.
    """
    if path.exists():
        raise ShardError(f"{path} exists already; delete it, or choose another --out")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp*"):
        process = re.match(r"\.(\d+)\.tmp", left.name.removeprefix(f".{path.name}"))
        if process is not None and not _is_running(int(process[1])):
            remove = shutil.rmtree if left.is_dir() else Path.unlink
            remove(left)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
