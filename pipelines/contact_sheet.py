"""Several pictures on one sheet, each above its label."""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

__all__ = ["contact_sheet"]

_SIDE, _LABEL, _MARGIN = 160, 20, 8


def contact_sheet(pictures: Sequence[tuple[str, Image.Image]], *, columns: int = 4) -> bytes:
    """Draw pictures in rows, each fitted into a square of 160 pixels.

    Args:
        pictures: Label and RGB picture of each, at least one.
        columns: Pictures in a row.

    Returns:
        A PNG file.
    """
    columns = min(columns, len(pictures))
    num_rows = -(-len(pictures) // columns)
    width, height = _SIDE + _MARGIN, _SIDE + _LABEL + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, num_rows * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for place, (label, image) in enumerate(pictures):
        left = _MARGIN + place % columns * width
        top = _MARGIN + place // columns * height
        picture = ImageOps.contain(image, (_SIDE, _SIDE))
        centred = left + (_SIDE - picture.width) // 2, top + (_SIDE - picture.height) // 2
        sheet.paste(picture, centred)
        draw.text((left + _SIDE / 2, top + _SIDE + 2), label, "black", font, anchor="ma")
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
