"""The two containers by the suffix of a file."""

from pathlib import Path

from mmcot_data.shards.arrow import frame_arrow, read_arrow_columns
from mmcot_data.shards.columns import Frame, ShardColumns
from mmcot_data.shards.hdf5 import frame_hdf5, read_hdf5_columns
from mmcot_data.shards.schema import Container, FeatureSpec

__all__ = ["SUFFIXES", "frame_shard", "read_columns"]

SUFFIXES: dict[Container, str] = {"hdf5": ".h5", "arrow": ".arrow"}


def frame_shard(suffix: str, columns: ShardColumns, spec: FeatureSpec) -> Frame:
    """What the container of ``suffix`` holds around the features.

    Raises:
        ShardError: If its library did not lay the columns out as asked.
    """
    return (frame_hdf5 if suffix == ".h5" else frame_arrow)(columns, spec)


def read_columns(path: Path) -> ShardColumns:
    """The columns of a shard through its container's library, without the features."""
    return (read_hdf5_columns if path.suffix == ".h5" else read_arrow_columns)(path)
