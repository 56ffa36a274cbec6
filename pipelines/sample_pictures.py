"""A sheet of pictures with the maps of their features, for a page."""

import io
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from mmcot_data.inspection import PictureFeatures, draw_feature_maps
from mmcot_data.shards.store import ShardStore

__all__ = ["choose_pictures", "draw_sheet"]

_MAX_NBYTES = 700_000
"""Of a PNG; a data URI of it is a third longer, and stands in the database of Prefect's server."""
_MAPPED = ("question_id", "role", "width", "height", "image_sha256", "file")


def choose_pictures(store: ShardStore, number: int) -> list[PictureFeatures]:
    """Distinct pictures that have features, spread evenly over the index.

    Args:
        store: The feature set.
        number: How many; there are fewer where the feature set has fewer.

    Raises:
        ShardError: If the index or a row is damaged.
    """
    index = store.read_index((*_MAPPED, "row", "num_patches"))
    index = index.filter(pl.all_horizontal(pl.col("row", "width", "height").is_not_null()))
    index = index.unique(["number", "row"], keep="first", maintain_order=True)
    places = np.linspace(0, index.height - 1, min(number, index.height)).round().astype(np.int64)
    chosen = index[places]
    rows = store.mapped.starts[chosen["number"].to_numpy()] + chosen["row"].to_numpy()
    store.mapped.prepare(rows)
    return [
        PictureFeatures(features=store.mapped.rows[row], **picture)
        for row, picture in zip(rows, chosen.select(_MAPPED).to_dicts(), strict=True)
    ]


def draw_sheet(
    store: ShardStore, pictures: list[PictureFeatures], data: Path | None
) -> tuple[str, bytes]:
    """The sheet of ``draw_feature_maps``: a PNG, or a JPEG where that would be large.

    Args:
        store: The feature set.
        pictures: Some of its pictures.
        data: The data set that it was made of; None draws the maps alone.

    Returns:
        ``png`` or ``jpeg``, and the file.

    Raises:
        DataError: If a picture is not the one that the features were made of.
        ImageError: If a picture is missing or cannot be decoded.
        ShardError: If a feature is not finite.
    """
    with tempfile.TemporaryDirectory(prefix="mmcot-sheet-") as folder:
        path = Path(folder) / "sheet.png"
        draw_feature_maps(path, store.spec, pictures, data)
        png = path.read_bytes()
    if len(png) <= _MAX_NBYTES:
        return "png", png
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as sheet:
        sheet.convert("RGB").save(buffer, "JPEG", quality=80)
    return "jpeg", buffer.getvalue()
