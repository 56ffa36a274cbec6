"""Which part of a picture each patch is of, as a box.

Shape suffixes: P = patches.
"""

import math

import numpy as np
import numpy.typing as npt

from mmcot_data.shards.schema import FeatureSpec

__all__ = ["patch_boxes"]


def patch_boxes(spec: FeatureSpec, width: int, height: int) -> npt.NDArray[np.float32]:
    """Boxes (P, 4) of one picture: x1, y1, x2, y2 in its pixels.

    A patch that has no place on a grid, as class tokens and object queries, has the whole picture;
    so have all patches where it is not known which part of the picture the grid covers.

    Args:
        spec: What made the features.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
    """
    from mmcot_data.inspection.covered_part import covered_box

    boxes_P4 = np.tile(np.array([0, 0, width, height], np.float32), (spec.num_patches, 1))
    covered = spec.grid and covered_box(width, height, spec.preprocessing)
    if spec.grid is None or covered is None:
        return boxes_P4
    rows, columns = spec.grid
    left, top, right, bottom = covered
    x = np.linspace(left, right, columns + 1)
    y = np.linspace(top, bottom, rows + 1)
    corners = (np.tile(x[:-1], rows), np.repeat(y[:-1], columns))
    opposite = (np.tile(x[1:], rows), np.repeat(y[1:], columns))
    boxes_P4[-math.prod(spec.grid) :] = np.stack([*corners, *opposite], axis=1)
    return boxes_P4
