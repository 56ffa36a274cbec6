"""Principal components of patch features as colours.

Shape suffixes: N = images, P = patches, D = feature width, V = the patches of all images.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError

__all__ = ["PatchColours", "principal_components_rgb"]

_PERCENTILES = (2, 98)
_ROUNDING = 1e-10
"""A spread that is smaller beside the features themselves is none."""
_FLAT = 1e-3
"""Percentiles that are nearer than this, beside the whole range, are not stretched."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PatchColours:
    """A colour for every patch: similar patches have similar colours, in all images."""

    rgb: npt.NDArray[np.uint8]
    """(N, P, 3)."""
    explained: tuple[float, float, float]
    """Share of the patches' variance that red, green and blue show, from 0 to 1."""


def principal_components_rgb(patches_NPD: npt.NDArray[np.floating[Any]]) -> PatchColours:
    """The first three principal components of all patches together, as red, green and blue.

    Each is stretched so that its 2nd percentile becomes 0 and its 98th 255; one without spread is
    128 everywhere. Components have no sign of their own: the largest weight of each is made
    positive, so that equal features give equal colours.

    Args:
        patches_NPD: Features (N, P, D).

    Raises:
        ShardError: If a value is not finite.
    """
    N, P, D = patches_NPD.shape
    patches_VD = patches_NPD.reshape(-1, D).astype(np.float64)
    if not np.isfinite(patches_VD).all():
        raise ShardError("features that are not finite have no principal components")
    centred_VD = patches_VD - patches_VD.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred_VD, full_matrices=False)
    lengths[lengths <= _ROUNDING * np.linalg.norm(patches_VD)] = 0
    variance = (lengths**2).sum()
    explained = [0.0, 0.0, 0.0]
    rgb_V3 = np.full((N * P, 3), 128, np.uint8)
    for number in range(min(3, int(np.count_nonzero(lengths)))):
        axis_D = axes[number] * np.sign(axes[number][np.abs(axes[number]).argmax()])
        rgb_V3[:, number] = _stretch(centred_VD @ axis_D)
        explained[number] = float(lengths[number] ** 2 / variance)
    red, green, blue = explained
    return PatchColours(rgb=rgb_V3.reshape(N, P, 3), explained=(red, green, blue))


def _stretch(scores_V: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    low, high = np.percentile(scores_V, _PERCENTILES)
    lowest, highest = scores_V.min(), scores_V.max()
    if high - low < _FLAT * (highest - lowest):  # nearly all patches are equal: show the others
        low, high = lowest, highest
    return np.rint(255 * ((scores_V - low) / (high - low)).clip(0, 1)).astype(np.uint8)
