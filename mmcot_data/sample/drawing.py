"""A canvas with clean edges, and the one palette of all drawings.

Everything is drawn ``SCALE`` times larger and averaged down; coordinates are those of the final
picture, in pixels, and may be fractions.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

__all__ = ["COLOURS", "INK", "PAPER", "SCALE", "Box", "Canvas", "Colour", "Fill", "Point", "mix"]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
Point = tuple[float, float]
Colour = tuple[int, int, int]
Fill = Colour | tuple[int, int, int, int] | None
"""None draws the outline only; a fourth value is the opacity on a transparent canvas, 0 to 255."""

SCALE = 2

PAPER: Colour = (255, 255, 255)
INK: Colour = (44, 58, 74)
COLOURS: dict[str, Colour] = {
    "blue": (45, 118, 210),
    "green": (38, 160, 90),
    "red": (222, 62, 56),
    "yellow": (247, 194, 42),
    "pink": (232, 84, 160),
}
"""The colours that texts name."""


def mix(colour: Colour, other: Colour, share: float) -> Colour:
    """``colour`` with ``share`` (0 to 1) of ``other`` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


class Canvas:
    """A picture in the making.

    Args:
        size: Width and height of the final picture, in pixels.
        background: Colour of the paper, or an RGB picture ``SCALE`` times as large as ``size``;
            None for a transparent picture (RGBA).
    """

    def __init__(
        self, size: tuple[int, int], background: Colour | Image.Image | None = PAPER
    ) -> None:
        self.width, self.height = size
        large = (self.width * SCALE, self.height * SCALE)
        if isinstance(background, Image.Image):
            self._image = background.copy()
        elif background is None:
            self._image = Image.new("RGBA", large, (0, 0, 0, 0))
        else:
            self._image = Image.new("RGB", large, background)
        self._draw = ImageDraw.Draw(self._image)

    def box(
        self,
        box: Box,
        fill: Fill,
        *,
        radius: float = 0,
        outline: Colour | None = None,
        width: float = 1,
        corners: tuple[bool, bool, bool, bool] = (True, True, True, True),
    ) -> None:
        """A rectangle; ``corners`` (from the upper left, clockwise) are rounded by ``radius``."""
        self._draw.rounded_rectangle(
            _scaled(box),
            radius=round(radius * SCALE),
            fill=fill,
            outline=outline,
            width=_width(width),
            corners=corners,
        )

    def oval(
        self,
        box: Box,
        fill: Fill,
        *,
        outline: Colour | None = None,
        width: float = 1,
    ) -> None:
        """An ellipse that fills ``box``."""
        self._draw.ellipse(_scaled(box), fill=fill, outline=outline, width=_width(width))

    def disc(
        self,
        centre: Point,
        radius: float,
        fill: Fill,
        *,
        outline: Colour | None = None,
        width: float = 1,
    ) -> None:
        """A circle."""
        (x, y), r = centre, radius
        self.oval((x - r, y - r, x + r, y + r), fill, outline=outline, width=width)

    def shape(
        self,
        points: Sequence[Point],
        fill: Fill,
        *,
        outline: Colour | None = None,
        width: float = 1,
    ) -> None:
        """A polygon."""
        corners = [(round(x * SCALE), round(y * SCALE)) for x, y in points]
        self._draw.polygon(corners, fill=fill)
        if outline is not None:
            self._draw.line([*corners, *corners[:2]], outline, _width(width), joint="curve")

    def line(self, points: Sequence[Point], colour: Colour, width: float = 1) -> None:
        """A line through all points, with round joints."""
        corners = [(round(x * SCALE), round(y * SCALE)) for x, y in points]
        self._draw.line(corners, colour, _width(width), joint="curve")

    def text(
        self,
        place: Point,
        text: str,
        size: float,
        colour: Colour = INK,
        *,
        anchor: str = "mm",
        weight: Literal["normal", "bold"] = "normal",
    ) -> None:
        """One line of text; ``size`` in pixels, ``anchor`` as in Pillow."""
        self._draw.text(
            (round(place[0] * SCALE), round(place[1] * SCALE)),
            text,
            colour,
            _font(round(size * SCALE)),
            anchor=anchor,
            stroke_width=max(1, round(size * SCALE / 44)) if weight == "bold" else 0,
        )

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self._image.reduce(SCALE)


def _scaled(box: Box) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(value * SCALE) for value in box)
    return left, top, right - 1, bottom - 1


def _width(width: float) -> int:
    return max(1, round(width * SCALE))


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, which draws the sample's labels")
    return font
