"""The features of a run: one feature set, or several laid beside each other.

Shape suffixes: B = batch, P = patches, D = feature width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmcot_data.errors import TrainingError
from mmcot_data.shards import FeatureSet
from mmcot_data.shards.store import ShardStore, open_store
from mmcot_model.feature_layout import FeatureLayout

__all__ = ["RunFeatures", "join_features", "open_run_features"]

_Rows = tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]


class RunFeatures:
    """Patch features of questions, for batches; made by ``open_run_features``.

    Args:
        places: Where each set was opened.
        stores: The sets.
        roles: The first of these roles that a question has is its picture.
    """

    def __init__(
        self, places: Sequence[Path | str], stores: Sequence[ShardStore], roles: Sequence[str]
    ) -> None:
        self.places = tuple(places)
        self.stores = tuple(stores)
        self.sets = tuple(FeatureSet(store, roles=roles) for store in stores)
        shapes = [features.row_shape for features in self.sets]
        self.layout = FeatureLayout(
            encoders=tuple(store.manifest.spec.encoder for store in stores),
            num_patches=sum(num_patches for num_patches, _ in shapes),
            patch_dim=sum(width for _, width in shapes),
        )

    def __contains__(self, question_id: object) -> bool:
        return any(question_id in features for features in self.sets)

    @property
    def specs(self) -> list[dict[str, Any]]:
        """What made each set, as JSON."""
        return [store.manifest.spec.to_json() for store in self.stores]

    @property
    def sha256(self) -> list[str]:
        """Digests of the sets' manifests."""
        return [store.manifest.sha256 for store in self.stores]

    def indexes(self) -> dict[str, pl.DataFrame]:
        """The index of each set, by its place."""
        return {
            str(place): store.read_index()
            for place, store in zip(self.places, self.stores, strict=True)
        }

    def gather(self, question_ids: Sequence[str]) -> _Rows:
        """Features (B, P, D) and mask (B, P), false where a question has no picture."""
        return join_features([features.gather(question_ids) for features in self.sets])


def join_features(parts: Sequence[_Rows]) -> _Rows:
    """Lay features of several encoders one after the other along the patches.

    A linear projection of the result is a projection of each part with weights of its own and a
    common bias: each part has columns to itself, with zeros in those of the others.

    Args:
        parts: Features (B, P_i, D_i) and masks (B, P_i).

    Returns:
        Features (B, sum P_i, sum D_i) and the mask (B, sum P_i).
    """
    if len(parts) == 1:
        return parts[0]
    num_patches = sum(features.shape[1] for features, _ in parts)
    width = sum(features.shape[2] for features, _ in parts)
    dtype = np.result_type(*(features.dtype for features, _ in parts))
    joined_BPD = np.zeros((len(parts[0][0]), num_patches, width), dtype)
    patch = column = 0
    for features, _ in parts:
        _, patches, columns = features.shape
        joined_BPD[:, patch : patch + patches, column : column + columns] = features
        patch, column = patch + patches, column + columns
    return joined_BPD, np.concatenate([mask for _, mask in parts], axis=1)


def open_run_features(
    places: Sequence[Path | str],
    roles: Sequence[str],
    *,
    expect: Sequence[dict[str, Any]] | None = None,
) -> RunFeatures | None:
    """Open the feature sets of a run.

    Args:
        places: Folders or URLs.
        roles: The first of these roles that a question has is its picture.
        expect: What each set's spec must be; None takes any.

    Returns:
        The features; None if there are no sets.

    Raises:
        ShardError: If a set cannot be read, or is not what is expected.
        TrainingError: If two sets are of the same encoder, or there are not as many as expected.
    """
    if expect is not None and len(expect) != len(places):
        raise TrainingError(
            f"{len(places)} feature sets were given, the model reads {len(expect)}: "
            + ", ".join(str(spec.get("encoder")) for spec in expect)
        )
    stores = [
        open_store(place, expect=None if expect is None else expect[number])
        for number, place in enumerate(places)
    ]
    encoders = [store.manifest.spec.encoder for store in stores]
    for encoder in encoders:
        if encoders.count(encoder) > 1:
            raise TrainingError(
                f"two feature sets are of the encoder {encoder!r}: give each encoder once"
            )
    return RunFeatures(places, stores, roles) if stores else None
