"""How a feature set is divided and what its parts are called."""

import hashlib
import json
import math
import re

import numpy as np

from mmcot_data.errors import ShardError
from mmcot_data.shards.containers import SUFFIXES
from mmcot_data.shards.schema import FeatureSpec, PlanKey

__all__ = ["default_shard_size", "digest_json", "folder_name", "shard_files"]

_SHARD_NBYTES = 256 * 2**20
_MAX_SHARD_ROWS = 1024
_MAX_SHARDS = 2**14


def folder_name(encoder: str) -> str:
    """What a feature set's folder is called: ``detr``; ``hf-org-name`` for ``hf:org/name``.

    Raises:
        ShardError: If nothing that a file may be called is left of the encoder's name.
    """
    name = re.sub(r"[^A-Za-z0-9._]+", "-", encoder).strip("-.")
    if not name:
        raise ShardError(f"the encoder is {encoder!r}, expected a name such as detr")
    return name


def default_shard_size(spec: FeatureSpec, num_images: int = 0) -> int:
    """Rows in a full shard: the power of two that gives 256 MiB at most, 1,024 at most.

    Where that made more than 16,384 shards, it is the smallest power of two that does not. Linux
    grants a process 65,530 memory maps, and a reader needs one for each shard: so the features of
    three encoders can be open at once.

    As powers of two, the shards of several encoders begin and end at the same pictures, or some do.

    Args:
        spec: Shape and dtype of a row.
        num_images: Distinct pictures.
    """
    row_nbytes = math.prod(spec.row_shape) * np.dtype(spec.dtype).itemsize
    rows = max(1, min(_MAX_SHARD_ROWS, _SHARD_NBYTES // row_nbytes))
    size = 1 << (rows.bit_length() - 1)
    while size * _MAX_SHARDS < num_images:
        size *= 2
    return size


def shard_files(plan: PlanKey) -> list[str]:
    """The names of all shards of a plan, in order, which is that of the names, too."""
    total = math.ceil(plan.num_images / plan.shard_size)
    digits = max(5, len(str(total)))
    suffix = SUFFIXES[plan.format]
    return [f"{n:0{digits}d}-of-{total:0{digits}d}{suffix}" for n in range(total)]


def digest_json(value: object) -> str:
    """Hex sha256 of a value as JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
