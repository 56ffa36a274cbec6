"""What to extract, with which encoder, and into what."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from mmcot_data.encoders.base import EncoderConfig
from mmcot_data.shards.schema import Container, StorageDtype
from mmcot_data.shards.writable import find_root
from mmcot_data.sources import Layout

__all__ = ["ExtractionConfig", "allowed_failures"]

_FAILURES = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")
_PADDINGS = (1, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractionConfig:
    """The features of one data set by one encoder.

    Raises:
        ValueError: If a setting is not one of those that are possible.
        ShardError: If ``out`` is a URL that can't be written to.
    """

    data: Path
    """The data set: a folder in ScienceQA's layout, a folder of pictures, …: see ``layout``."""
    out: Path | str
    """Artifact root, a text only where it is a URL such as ``s3://bucket/shards``; the feature set
    becomes a folder in it."""
    encoder: EncoderConfig
    layout: Layout = "auto"
    """What ``data`` is; ``auto`` looks at it."""
    id_column: str | None = None
    """Of a table of pictures: the column that identifies them."""
    image_column: str | None = None
    """Of a table of pictures: the column that holds them."""
    licence: str | None = None
    """Of the pictures; None takes what the data set says."""
    splits: tuple[str, ...] | None = None
    """Only the pictures of these splits; all if None."""
    format: Container = "hdf5"
    dtype: StorageDtype = "float16"
    """Of the stored features."""
    shard_size: int | None = None
    """Pictures in a shard; None gives shards of 256 MiB, 1,024 rows at most; more where there
    would be over 16,384 shards."""
    batch_size: int | None = None
    """Pictures encoded together, fewer where they are more elongated than 2:1; None is 8 on a CPU
    and 64 on a GPU."""
    pad_to: int = 1
    """1 encodes only pictures of equal input size together. 32 makes fuller batches for DETR: input
    sizes that are equal when rounded up to it share a batch. More would be mostly padding."""
    max_failures: str = "1%"
    """Pictures that may fail: a number, or a percentage of the pictures asked for."""

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("layout", self.layout, get_args(Layout)),
            ("format", self.format, get_args(Container)),
            ("dtype", self.dtype, get_args(StorageDtype)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
        for name, number in (("shard_size", self.shard_size), ("batch_size", self.batch_size)):
            if number is not None and number < 1:
                raise ValueError(f"{name} is {number}, expected at least 1")
        if self.pad_to not in _PADDINGS:
            raise ValueError(f"pad_to is {self.pad_to}, expected 1 or 32")
        allowed_failures(self.max_failures, 0)
        if isinstance(find_root(self.out), Path) != isinstance(self.out, Path):
            raise ValueError(f"out is {self.out!r}, expected a Path, or a URL such as s3://…")


def allowed_failures(limit: str, num_images: int) -> int:
    """How many pictures may fail.

    Args:
        limit: A number such as ``10``, or a percentage such as ``1%`` or ``0.5%``.
        num_images: Pictures asked for; a percentage is of them, rounded down.

    Raises:
        ValueError: If the limit is neither.
    """
    match = _FAILURES.fullmatch(limit)
    if match is None:
        raise ValueError(f"max_failures is {limit!r}, expected a number or a percentage like 1%")
    number, percentage = match.groups()
    return int(number) if number else int(num_images * float(percentage) / 100)
