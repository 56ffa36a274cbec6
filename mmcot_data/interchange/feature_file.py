"""A file of features by row, as another program wrote it, opened and not yet read.

Shape suffixes: N = rows of the file, P = patches, D = feature width.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.shards.schema import FeatureSpec, StorageDtype

__all__ = ["FeatureFile", "QuestionRow", "parse_spec", "storage_dtype"]


class QuestionRow(NamedTuple):
    """Which row of a file belongs to a question."""

    question_id: str
    role: str | None
    """Image role; None where the file does not say it."""
    row: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureFile:
    """What an opener found in a file, and how its rows are read."""

    path: Path
    sha256: str
    """Hex digest of its bytes."""
    layout: str
    """In words, for the spec."""
    row_shape: tuple[int, int]
    """(P, D)."""
    dtype: StorageDtype
    read: Callable[[int, int], npt.NDArray[np.floating[Any]]]
    """Gives the rows (n, P, D) from a first one up to, and without, a last one."""
    questions: tuple[QuestionRow, ...]
    """Rows may be shared, and rows may be of no question."""
    num_patches_N: npt.NDArray[np.int32]
    image_sha256_N32: npt.NDArray[np.uint8]
    """Zeros where the file does not say it."""
    spec: FeatureSpec | None = None
    """Where the file itself says what made the features."""

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.num_patches_N)


def storage_dtype(dtype: Any, where: str) -> StorageDtype:
    """The storage dtype of a numpy dtype of either byte order.

    Raises:
        ShardError: If it is not one that shards have; ``where`` names the place.
    """
    for name in get_args(StorageDtype):
        if dtype.name == name:
            return name
    raise ShardError(
        f"{where} holds {dtype.name}, expected float16 or float32: features are stored as they are "
        "and never rounded on the way; cast them yourself, and write the file anew"
    )


def parse_spec(text: object, where: str) -> FeatureSpec | None:
    """The spec that an export left in a file; None if the text is something else.

    Raises:
        ShardError: If it is the spec of another version; ``where`` names the place.
    """
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return FeatureSpec.from_json(value, where) if isinstance(value, dict) else None
