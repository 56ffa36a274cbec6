"""An opened feature set: its manifest, its index, and its shards as memory maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import polars as pl

from mmcot_data.errors import ShardError, SpecMismatchError
from mmcot_data.shards.index import INDEX, INDEX_SCHEMA, read_index
from mmcot_data.shards.location import Location, find_location
from mmcot_data.shards.manifest import Manifest
from mmcot_data.shards.mapped import Check, MappedRows
from mmcot_data.shards.schema import FeatureSpec

__all__ = ["ShardStore", "open_store"]


@dataclass(frozen=True, slots=True)
class ShardStore:
    """A finished feature set by shard and row; ``FeatureSet`` reads it by question id."""

    location: Location
    manifest: Manifest
    mapped: MappedRows
    """The shards, in the manifest's order; no file is touched before its first row is read."""

    @property
    def spec(self) -> FeatureSpec:
        """What made the features."""
        return self.manifest.spec

    def read_index(self, columns: Sequence[str] = tuple(INDEX_SCHEMA)) -> pl.DataFrame:
        """index.parquet, with the number of each row's shard as ``number``.

        Raises:
            ShardError: If it is absent or not the one that the manifest describes.
        """
        digest, nbytes = self.manifest.index_sha256, self.manifest.index_nbytes
        path = self.location.file(INDEX, sha256=digest, nbytes=nbytes)
        return read_index(path, self.manifest, columns)


def open_store(
    path: str | Path,
    *,
    expect: FeatureSpec | Mapping[str, Any] | None = None,
    check: Check = "rows",
    cache: Path | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ShardStore:
    """Open a finished feature set; arguments and errors are those of ``open_features``."""
    if check not in get_args(Check):
        raise ValueError(f"check is {check!r}, expected one of {', '.join(get_args(Check))}")
    location = find_location(path, cache=cache, storage_options=storage_options)
    manifest = location.read_manifest()
    if expect is not None:
        _check_spec(location, manifest.spec, expect)
    return ShardStore(
        location, manifest, MappedRows(location, manifest.shards, manifest.spec, check)
    )


def _check_spec(
    location: Location, found: FeatureSpec, expect: FeatureSpec | Mapping[str, Any]
) -> None:
    expected = found.to_json()
    wanted = expect.to_json() if isinstance(expect, FeatureSpec) else expect
    if unknown := sorted(wanted.keys() - expected.keys()):
        raise ShardError(
            f"a spec has no field {', '.join(unknown)}; its fields are {', '.join(expected)}"
        )
    asked = FeatureSpec.from_json({**expected, **wanted})
    if differences := asked.differences(found):
        raise SpecMismatchError(
            f"{location} holds features that were made in another way than asked for:\n  "
            + "\n  ".join(differences)
        )
