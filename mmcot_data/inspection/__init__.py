"""Look into a feature set: what its values are like, and what its patches tell apart."""

from mmcot_data.inspection.components import PatchColours, principal_components_rgb
from mmcot_data.inspection.covered_part import covered_box
from mmcot_data.inspection.feature_maps import PictureFeatures, draw_feature_maps
from mmcot_data.inspection.statistics import (
    FeatureStatistics,
    ValueStatistics,
    feature_statistics,
)

__all__ = [
    "FeatureStatistics",
    "PatchColours",
    "PictureFeatures",
    "ValueStatistics",
    "covered_box",
    "draw_feature_maps",
    "feature_statistics",
    "principal_components_rgb",
]
