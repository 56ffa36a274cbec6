"""The features of one picture, as the feature sets of a run hold them.

Shape suffixes: B = batch, P = patches, D = feature width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.extraction.spec_encoder import (
    NotReextractableError,
    find_alpha,
    list_changes,
    load_spec_encoder,
)
from mmcot_data.images import decode_rgb
from mmcot_data.shards import FeatureSpec
from mmcot_data.shards.writer import cast_features
from mmcot_model.features import join_features

__all__ = ["PictureFeatures", "encode_picture"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PictureFeatures:
    """Features of one picture; a source of features for any question."""

    features_BPD: npt.NDArray[np.floating[Any]]
    """With B = 1."""
    mask_BP: npt.NDArray[np.bool_]
    notes: tuple[str, ...] = ()
    """What may change the rounding against the run's features, as sentences."""

    def gather(
        self, question_ids: Sequence[str]
    ) -> tuple[npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]:
        """The same features (B, P, D) and mask (B, P) for each question."""
        count = len(question_ids)
        return self.features_BPD.repeat(count, axis=0), self.mask_BP.repeat(count, axis=0)


def encode_picture(
    specs: Sequence[FeatureSpec],
    picture: bytes,
    name: str,
    *,
    models: Mapping[str, str],
    device: str = "auto",
) -> PictureFeatures:
    """Make the features that extraction makes of a picture, to rounding.

    Args:
        specs: Of the feature sets that are laid beside each other.
        picture: Bytes of the picture's file.
        name: What to call the picture in errors.
        models: Local folder or hub id of an encoder's model, where the spec's own can't be found.
        device: As for ``EncoderConfig``.

    Raises:
        EncoderError: If a model can't be loaded.
        ImageError: If the picture can't be decoded.
        ShardError: If a spec does not say enough, or a model came from a folder that isn't named.
        SpecMismatchError: If what is loaded makes other features; lists what differs.
    """
    parts, notes = [], []
    for spec in specs:
        try:
            encoder = load_spec_encoder(spec, model=models.get(spec.encoder), device=device)
        except NotReextractableError as error:
            raise ShardError(
                f"{error}; questions of the data set can be asked all the same, with --question-id"
            ) from error
        image = decode_rgb(picture, name, alpha=find_alpha(spec.preprocessing))
        features_BPD = encoder.start(encoder.prepare(image)[None])().numpy()
        stored_BPD = cast_features(features_BPD, spec.dtype, [name])
        parts.append((stored_BPD, np.ones(stored_BPD.shape[:2], np.bool_)))
        notes += [f"{spec.encoder}: {change}" for change in list_changes(encoder, spec)]
    features_BPD, mask_BP = join_features(parts)
    return PictureFeatures(features_BPD=features_BPD, mask_BP=mask_BP, notes=tuple(notes))
