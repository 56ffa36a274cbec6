"""Read a feature set by question id.

Shape suffixes: B = batch, P = patches, D = feature width.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmcot_data.errors import ShardError
from mmcot_data.files import file_sha256
from mmcot_data.shards.manifest import Manifest, read_manifest
from mmcot_data.shards.mapped import MappedShard
from mmcot_data.shards.schema import FeatureSpec

__all__ = ["FeatureSet", "open_features"]


def open_features(path: str | Path, *, roles: Sequence[str] = ("question",)) -> "FeatureSet":
    """Open a finished feature set; no shard is touched before its first row is asked for.

    Args:
        path: The feature set's folder, such as ``shards/detr``.
        roles: Image roles in the order of preference: a question is given the features of the
            first of them that it has. Multimodal-CoT used ``("question", "choice_0")``.

    Raises:
        ShardError: If the folder is unfinished, damaged, or of another format version.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    shards = [
        MappedShard(folder / record.file, record, manifest.spec) for record in manifest.shards
    ]
    return FeatureSet(manifest.spec, shards, _read_places(folder, manifest, roles))


class FeatureSet:
    """Patch features by question id, memory-mapped; made by ``open_features``.

    It can be pickled, and used in threads and in forked or spawned processes.

    Args:
        spec: What made the features.
        shards: The shards that hold them.
        places: Shard number, row and number of valid patches, by question id.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        shards: Sequence[MappedShard],
        places: dict[str, tuple[int, int, int]],
    ) -> None:
        self.spec = spec
        self._shards = list(shards)
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, question_id: object) -> bool:
        return question_id in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    @property
    def question_ids(self) -> list[str]:
        """Ids of the questions that have features, in the order of the index."""
        return list(self._places)

    def __getitem__(self, question_id: str) -> npt.NDArray[np.floating[Any]]:
        """The features of one question: a read-only view (P, D) of the file.

        Raises:
            KeyError: If the question has no features.
        """
        if question_id not in self._places:
            raise KeyError(f"question {question_id!r} has no features in this feature set")
        shard, row, _ = self._places[question_id]
        return self._shards[shard].features()[row]

    def gather(
        self, question_ids: Sequence[str], out: npt.NDArray[np.floating[Any]] | None = None
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]:
        """Features of several questions, copied into one array.

        Args:
            question_ids: Ids in the order wanted; one may occur more than once. An id without
                features gives zeros and a mask that is false.
            out: Array (B, P, D) of the stored dtype to fill; reusing one saves its allocation.

        Returns:
            Features (B, P, D) in the stored dtype, and the mask (B, P) of valid patches.

        Raises:
            ValueError: If ``out`` has another shape or dtype.
            ShardError: If a shard is absent or damaged.
        """
        shape = (len(question_ids), *self.spec.row_shape)
        if out is None:
            out = np.empty(shape, self.spec.dtype)
        elif out.shape != shape or out.dtype != self.spec.dtype:
            raise ValueError(f"out is {out.dtype}{out.shape}, expected {self.spec.dtype}{shape}")
        mask_BP = np.zeros(shape[:2], np.bool_)
        places = [self._places.get(question_id) for question_id in question_ids]
        for place in places:
            if place is not None:
                self._shards[place[0]].will_need(place[1])
        for item, place in enumerate(places):
            if place is None:
                out[item] = 0
            else:
                shard, row, num_patches = place
                out[item] = self._shards[shard].features()[row]
                mask_BP[item, :num_patches] = True
        return out, mask_BP

    def batches(
        self, question_ids: Sequence[str], batch_size: int
    ) -> Iterator[tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]]:
        """What ``gather`` gives, for consecutive parts of ``question_ids``.

        Args:
            question_ids: Ids in the order wanted.
            batch_size: Questions in a batch; the last one may hold fewer.

        Raises:
            ValueError: If the batch size is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        return (
            self.gather(question_ids[start : start + batch_size])
            for start in range(0, len(question_ids), batch_size)
        )


def _read_places(
    folder: Path, manifest: Manifest, roles: Sequence[str]
) -> dict[str, tuple[int, int, int]]:
    path = folder / "index.parquet"
    if not path.is_file() or file_sha256(path) != manifest.index_sha256:
        raise ShardError(
            f"{path} is absent or not the one that manifest.json describes; run the same "
            "extraction again to write it anew"
        )
    files = pl.DataFrame(
        {
            "shard": [record.file for record in manifest.shards],
            "number": range(len(manifest.shards)),
            "rows": [record.rows for record in manifest.shards],
        },
        schema={"shard": pl.String, "number": pl.Int64, "rows": pl.Int64},
    )
    preference = pl.DataFrame(
        {"role": list(roles), "preference": range(len(roles))},
        schema={"role": pl.String, "preference": pl.Int64},
    )
    columns = ["question_id", "role", "shard", "row", "num_patches"]
    index = (
        pl.read_parquet(path, columns=columns)
        .filter(pl.col("row").is_not_null())
        .join(files, on="shard", how="left", maintain_order="left")
    )
    if (lost := index.filter(~(pl.col("row") < pl.col("rows")).fill_null(value=False))).height:
        raise ShardError(
            f"{path} is damaged: {lost.height} rows point outside the shards of manifest.json, "
            f"the first for question {lost['question_id'][0]!r}"
        )
    chosen = (
        index.with_row_index("order")
        .join(preference, on="role")
        .sort("preference")
        .unique("question_id", keep="first", maintain_order=True)
        .sort("order")
    )
    places = chosen.select("number", "row", "num_patches").rows()
    return dict(zip(chosen["question_id"], places, strict=True))
