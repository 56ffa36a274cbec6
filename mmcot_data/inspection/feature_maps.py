"""Draw what patch features tell apart: their principal components as colours over the pictures.

Shape suffixes: N = images, P = patches, D = feature width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import DataError
from mmcot_data.files import replace_file
from mmcot_data.inspection.components import principal_components_rgb
from mmcot_data.inspection.contact_sheet import Card, draw_contact_sheet
from mmcot_data.inspection.covered_part import covered_box
from mmcot_data.shards.schema import FeatureSpec

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["PictureFeatures", "draw_feature_maps"]

_LONGER_SIDE, _SHORTER_SIDE = 240, 80
"""Of a panel, in pixels: the longer side, and the least that the shorter one is stretched to."""
_MAP_SHARE = 0.5
"""Of the map where it lies over the picture."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PictureFeatures:
    """The features of one picture; the other fields are columns of index.parquet."""

    features: npt.NDArray[np.floating[Any]]
    """(P, D)."""
    question_id: str
    role: str
    width: int
    """Of the picture, in pixels."""
    height: int
    image_sha256: str
    file: str
    """Its place within the data set."""


def draw_feature_maps(
    path: Path, spec: FeatureSpec, pictures: Sequence[PictureFeatures], data: Path | None = None
) -> None:
    """Draw a contact sheet as PNG: each picture, its patches as colours, and both in one.

    Colours are the first three principal components of all patches of these pictures, so that
    what has one colour has similar features. Of a picture that the encoder cropped, the part is
    drawn that it saw. Patches without a place in the picture are drawn as a table of tiles.

    Args:
        path: Of the PNG.
        spec: Of the feature set.
        pictures: A few pictures of the feature set.
        data: The data set that the features were made of; without it the pictures are left out.

    Raises:
        ValueError: If there is no picture.
        DataError: If a picture is not the one that the features were made of.
        ImageError: If a picture is missing or cannot be decoded.
        ShardError: If a feature is not finite.
    """
    if not pictures:
        raise ValueError("there is nothing to draw: expected at least one picture")
    num_placed = spec.num_patches if spec.grid is None else math.prod(spec.grid)
    patches_NPD = np.stack([picture.features[-num_placed:] for picture in pictures])
    colours = principal_components_rgb(patches_NPD)
    cards = [
        _draw_card(picture, rgb_P3, spec, data)
        for picture, rgb_P3 in zip(pictures, colours.rgb, strict=True)
    ]
    weights = "" if spec.random_weights is None else ", random weights"
    red, green, blue = (f"{share:.1%}" for share in colours.explained)
    notes = [
        f"{spec.model_id}{weights}",
        f"Colours: principal components of {len(patches_NPD) * num_placed} patches; red explains "
        f"{red}, green {green}, blue {blue} of their variance.",
    ]
    if spec.grid is None:
        notes.append("The patches (object queries) have no place in the picture: a tile each.")
    sheet = draw_contact_sheet(spec.encoder, notes, cards)
    replace_file(path, lambda tmp: sheet.save(tmp, "PNG"))


def _draw_card(
    picture: PictureFeatures, rgb_P3: npt.NDArray[np.uint8], spec: FeatureSpec, data: Path | None
) -> Card:
    width, height = picture.width, picture.height
    whole = (0.0, 0.0, float(width), float(height))
    note = f"{width} x {height}"
    image = None if data is None else _read_picture(picture, data)
    if spec.grid is None:
        panels = [_tiles(rgb_P3)]
        if image is not None:
            panels.insert(0, image.resize(_panel_size(width, height)))
    else:
        box = covered_box(width, height, spec.preprocessing)
        left, top, right, bottom = box or whole
        if box is None:
            note += ", place of the grid not known"
        elif box != whole:
            note = f"the middle {right - left:.0f} x {bottom - top:.0f} of {note}"
        panels = [_map(rgb_P3, spec.grid, _panel_size(right - left, bottom - top))]
        if image is not None:
            panels.insert(0, image.resize(panels[0].size, box=box or whole))
            if box is not None:
                panels.append(_blend(*panels))
    return Card(title=f"{picture.question_id} · {picture.role}", note=note, panels=panels)


def _read_picture(picture: PictureFeatures, data: Path) -> "Image.Image":
    from mmcot_data.images import bytes_sha256, decode_rgb
    from mmcot_data.sources import open_stored

    stored = open_stored(data, picture.file)
    content = stored.read()
    if (sha256 := bytes_sha256(content)) != picture.image_sha256:
        raise DataError(
            f"{stored.name} is not the picture that the features of question "
            f"{picture.question_id!r} ({picture.role}) were made of: its sha256 is {sha256}, "
            f"expected {picture.image_sha256}; give the data set of the extraction, or none to "
            "draw the maps alone"
        )
    return decode_rgb(content, stored.name)


def _panel_size(width: float, height: float) -> tuple[int, int]:
    scale = _LONGER_SIDE / max(width, height)
    return max(_SHORTER_SIDE, round(width * scale)), max(_SHORTER_SIDE, round(height * scale))


def _map(
    rgb_P3: npt.NDArray[np.uint8], grid: tuple[int, int], size: tuple[int, int]
) -> "Image.Image":
    from PIL import Image

    cells = Image.fromarray(rgb_P3.reshape(*grid, 3))
    return cells.resize(size, Image.Resampling.NEAREST)


def _blend(image: "Image.Image", colours: "Image.Image") -> "Image.Image":
    """The map, with the picture in shades of grey shining through."""
    from PIL import Image

    return Image.blend(image.convert("L").convert("RGB"), colours, _MAP_SHARE)


def _tiles(rgb_P3: npt.NDArray[np.uint8]) -> "Image.Image":
    """The patches as a table that is about as wide as high, row by row."""
    from PIL import Image

    columns = math.ceil(math.sqrt(len(rgb_P3)))
    rows = math.ceil(len(rgb_P3) / columns)
    cells = np.full((rows * columns, 3), 255, np.uint8)
    cells[: len(rgb_P3)] = rgb_P3
    side = max(1, _LONGER_SIDE // columns)
    tiles = cells.reshape(rows, columns, 3).repeat(side, axis=0).repeat(side, axis=1)
    is_gap = np.arange(columns * side) % side >= side - side // 8
    tiles[is_gap[: rows * side]] = tiles[:, is_gap] = 255
    return Image.fromarray(tiles)
