"""Attention to the patches of one picture: over the picture, or as bars.

Shape suffixes: P = patches.
"""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mmcot_data.inspection.covered_part import covered_box
from mmcot_data.shards import FeatureSpec

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["draw_attention", "draw_picture", "panel_height", "picture_title", "put_text"]

_RED = (0.78, 0.08, 0.08)
_MOST = 0.72
"""Opacity of the patch with the largest share."""
_INK, _GREY, _LINE = "#22272e", "#6a737d", "#c3c9d0"
_FADING = 0.55
"""How much of white a picture gets where attention is drawn over it."""
_ASCENT = 0.95
"""Of a letter, in font sizes, with a little room."""
_MAX_ELONGATION = 1.25
"""Height of a panel, in widths; higher pictures are drawn narrower."""
_BARS_HEIGHT = 0.55
_MIN_CELL = 0.3
"""Inches of a patch that has room for a figure."""
_MIN_SHOWN = 0.02
"""Smallest share that is written."""

Box = tuple[float, float, float, float]
"""Left, top, width and height in inches."""


def panel_height(image: "Image.Image | None", spec: FeatureSpec, width: float) -> float:
    """Inches that a panel of a width needs.

    Args:
        image: The picture; None if it isn't at hand.
        spec: Of the features.
        width: In inches.
    """
    return width * min(_elongation(image, spec), _MAX_ELONGATION)


def picture_title(image: "Image.Image", spec: FeatureSpec) -> str:
    """What ``draw_picture`` draws."""
    return "the picture" if _covered(image, spec) is None else "what the encoder saw"


def put_text(axes: Axes, x: float, y: float, text: str, *, size: float, **style: Any) -> None:
    """Write one line whose letters begin below ``y``; a dollar sign begins no formula."""
    style = {"color": _INK, "va": "baseline", **style}
    axes.text(x, y + size * _ASCENT / 72, text, fontsize=size, parse_math=False, **style)


def draw_picture(axes: Axes, box: Box, image: "Image.Image", spec: FeatureSpec) -> None:
    """Draw the part of a picture that its encoder saw, or all of it where that is not known.

    Args:
        axes: Its unit is the inch, its y axis points down.
        box: Of the panel.
        image: The picture.
        spec: Of the features.
    """
    extent = _extent(_fit(box, image, spec))
    axes.imshow(image.crop(_part(image, spec)), extent=extent, aspect="auto")


def draw_attention(
    axes: Axes,
    box: Box,
    image: "Image.Image | None",
    spec: FeatureSpec,
    attention_P: npt.NDArray[np.floating[Any]],
) -> None:
    """Draw one panel, and a line of text below it; only the text if there is nothing to show.

    Args:
        axes: Its unit is the inch, its y axis points down.
        box: Of the panel.
        image: The picture; None leaves it out.
        spec: Of the features.
        attention_P: Share of each patch.
    """
    left, top, _, height = box
    if not attention_P.any():
        note = "no features of this picture"
    elif spec.grid is None:
        _draw_bars(axes, box, attention_P)
        note = f"highest: {attention_P.max():.1%}; these patches have no place in the picture"
    else:
        placed_P = attention_P[-math.prod(spec.grid) :]
        _draw_map(axes, box, image, spec, placed_P)
        notes = [f"darkest: {placed_P.max():.1%}"]
        if len(placed_P) < len(attention_P):
            notes.append(f"class token: {attention_P[: -len(placed_P)].sum():.1%}")
        if image is not None and _covered(image, spec) is None:
            notes.append("place in the picture not known")
        note = "; ".join(notes)
    put_text(axes, left, top + height + 0.06, note, size=8, color=_GREY)


def _draw_map(
    axes: Axes,
    box: Box,
    image: "Image.Image | None",
    spec: FeatureSpec,
    attention_P: npt.NDArray[np.floating[Any]],
) -> None:
    assert spec.grid is not None
    rows, columns = spec.grid
    left, top, width, height = box = _fit(box, image, spec)
    if image is not None and _covered(image, spec) is not None:
        draw_picture(axes, box, _faded(image), spec)
    shares = attention_P.reshape(rows, columns)
    veil = np.empty((rows, columns, 4))
    veil[..., :3] = _RED
    veil[..., 3] = _MOST * shares / (shares.max() or 1)
    axes.imshow(veil, extent=_extent(box), aspect="auto", interpolation="nearest")
    cell_width, cell_height = width / columns, height / rows
    for row in range(rows + 1):
        y = top + row * cell_height
        axes.plot([left, left + width], [y, y], color=_LINE, lw=0.4)
    for column in range(columns + 1):
        x = left + column * cell_width
        axes.plot([x, x], [top, top + height], color=_LINE, lw=0.4)
    if min(cell_width, cell_height) < _MIN_CELL:
        return
    for row, column in zip(*np.nonzero(shares >= _MIN_SHOWN), strict=True):
        x, y = left + (column + 0.5) * cell_width, top + (row + 0.5) * cell_height
        text = f"{shares[row, column]:.0%}"
        axes.text(x, y, text, ha="center", va="center", fontsize=7.5, weight="bold")


def _draw_bars(axes: Axes, box: Box, attention_P: npt.NDArray[np.floating[Any]]) -> None:
    left, top, width, height = box
    step, most = width / len(attention_P), attention_P.max()
    for place, share in enumerate(attention_P):
        bar = height * float(share) / most
        corner = (left + place * step, top + height - bar)
        axes.add_patch(Rectangle(corner, step * 0.8, bar, color=_RED, lw=0))
    axes.plot([left, left + width], [top + height] * 2, color=_GREY, lw=0.6)


def _covered(image: "Image.Image", spec: FeatureSpec) -> tuple[float, float, float, float] | None:
    return covered_box(image.width, image.height, spec.preprocessing)


def _part(image: "Image.Image", spec: FeatureSpec) -> tuple[int, int, int, int]:
    """What the encoder saw of the picture, as far as that is known; at least a pixel."""
    covered = _covered(image, spec) or (0, 0, image.width, image.height)
    left, top, right, bottom = (round(side) for side in covered)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _faded(image: "Image.Image") -> "Image.Image":
    """In light shades of grey."""
    from PIL import Image

    grey = image.convert("L").convert("RGB")
    return Image.blend(grey, Image.new("RGB", image.size, "white"), _FADING)


def _elongation(image: "Image.Image | None", spec: FeatureSpec) -> float:
    """Height of what is drawn, in widths."""
    if image is not None:
        left, top, right, bottom = _part(image, spec)
        return (bottom - top) / (right - left)
    return _BARS_HEIGHT if spec.grid is None else spec.grid[0] / spec.grid[1]


def _fit(box: Box, image: "Image.Image | None", spec: FeatureSpec) -> Box:
    """The box, as narrow as what is drawn has to be to keep its shape."""
    left, top, width, height = box
    return left, top, min(width, height / _elongation(image, spec)), height


def _extent(box: Box) -> Box:
    """For ``imshow``, with a y axis that points down."""
    left, top, width, height = box
    return left, left + width, top + height, top
