"""Draw an island with flags, and the flags alone."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from mmcot_data.sample.drawing import COLOURS, INK, PAPER, SCALE, Canvas, Colour, Point, mix

__all__ = ["FLAGS", "Island", "draw_flag", "draw_island", "draw_legend"]

FLAGS = ("blue", "green", "red", "yellow")
"""In the order of the choices."""

_SIZES = ((400, 300), (440, 300), (480, 320), (380, 300))
_SEA = (238, 246, 251)
_SHALLOW = (222, 237, 247)
_BEACH = (238, 236, 228)
_LANDS = ((246, 248, 242), (249, 247, 241), (247, 247, 245))
_GRID = 4
"""Pixels of the final picture for one of the coast's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Island:
    """Where each flag stands."""

    sides: dict[str, str]
    """Side of the island, ``north``, ``south``, ``east`` or ``west``, by flag."""
    flags: dict[str, Point]
    """x from west (0) to east (1), y from north (0) to south (1), by flag."""


def draw_island(rng: Generator, scene: Island) -> Image.Image:
    """A map of the island with a compass rose; a palette picture."""
    size = _SIZES[rng.integers(len(_SIZES))]
    land = _LANDS[rng.integers(len(_LANDS))]
    width, height = size
    places = {flag: (width * (0.015 + 0.8 * x), height * y) for flag, (x, y) in scene.flags.items()}
    canvas = Canvas(size, _draw_land(rng, size, list(places.values()), land))
    flag_size = height * 0.125
    for x, y in _free_spots(rng, size, list(places.values())):
        _draw_hill(canvas, (x, y), flag_size * 0.6, land)
    for flag, place in sorted(places.items(), key=lambda item: item[1][1]):
        _draw_flag(canvas, place, flag_size, flag)
    _, eastmost_y = max(places.values())
    rose_y = height * (0.8 if eastmost_y < height / 2 else 0.2)
    _draw_rose(canvas, (width * 0.91, rose_y), width * 0.045)
    canvas.box((0, 0, width, height), None, outline=mix(_SHALLOW, INK, 0.3), width=1)
    return canvas.finish().quantize(palette=_palette(land), dither=Image.Dither.NONE)


def draw_flag(flag: str) -> Image.Image:
    """One flag on transparent ground."""
    canvas = Canvas((160, 160), background=None)
    _draw_flag(canvas, (72, 78), 56, flag)
    return canvas.finish()


def draw_legend() -> Image.Image:
    """All flags with their names."""
    canvas = Canvas((260, 210))
    canvas.box((2, 2, 258, 208), PAPER, radius=12, outline=mix(PAPER, INK, 0.3), width=1)
    for place, flag in enumerate(FLAGS):
        y = 36 + place * 46
        _draw_flag(canvas, (52, y), 17, flag)
        canvas.text((96, y), f"the {flag} flag", 20, anchor="lm")
    return canvas.finish()


def _draw_land(
    rng: Generator, size: tuple[int, int], places: list[Point], land: Colour
) -> Image.Image:
    """Sea and an island that carries all places, ``SCALE`` times as large."""
    width, height = size
    centre = (width * 0.42, height * 0.5)
    spots = [(centre, height * rng.uniform(0.24, 0.32))]
    for x, y in places:
        spots.append(((x, y), height * rng.uniform(0.12, 0.15)))
        middle = ((x + centre[0]) / 2, (y + centre[1]) / 2)
        spots.append((middle, height * rng.uniform(0.14, 0.22)))
    shape = Image.new("L", (width // _GRID, height // _GRID), 0)
    draw = ImageDraw.Draw(shape)
    for (x, y), radius in spots:
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse([value / _GRID for value in box], 255)
    heights = shape.filter(ImageFilter.GaussianBlur(4)).resize(
        (width * SCALE, height * SCALE), Image.Resampling.BICUBIC
    )
    # 256 entries: from the open sea (0) over the beach to the land (3).
    levels = heights.point([0] * 24 + [1] * 66 + [2] * 30 + [3] * 136)
    coloured = Image.frombytes("P", levels.size, levels.tobytes())
    coloured.putpalette([*_SEA, *_SHALLOW, *_BEACH, *land])
    return coloured.convert("RGB")


def _free_spots(rng: Generator, size: tuple[int, int], places: list[Point]) -> list[Point]:
    """Up to three places inland that are away from the flags and from each other."""
    width, height = size
    spots: list[Point] = []
    for _ in range(12):
        x, y = width * rng.uniform(0.28, 0.58), height * rng.uniform(0.33, 0.7)
        near = [abs(x - a) + abs(y - b) < height * 0.24 for a, b in (*places, *spots)]
        if not any(near) and len(spots) < 3:
            spots.append((x, y))
    return spots


def _draw_hill(canvas: Canvas, place: Point, size: float, land: Colour) -> None:
    x, y = place
    light, dark = mix(land, INK, 0.16), mix(land, INK, 0.3)
    canvas.shape(
        [(x - size, y + size * 0.6), (x, y - size * 0.7), (x + size, y + size * 0.6)], light
    )
    canvas.shape(
        [(x, y - size * 0.7), (x + size, y + size * 0.6), (x + size * 0.15, y + size * 0.6)], dark
    )


def _draw_flag(canvas: Canvas, centre: Point, size: float, flag: str) -> None:
    x, y = centre
    colour = COLOURS[flag]
    left, top, pole = x - size * 0.85, y - size, size * 0.09
    foot = (left - size * 0.3, y + size * 0.88, left + size * 0.45, y + size * 1.1)
    canvas.oval(foot, mix(_BEACH, INK, 0.3))
    steps = range(13)
    upper = [(left + size * 1.8 * t / 12, top + _wave(t / 12) * size * 0.12) for t in steps]
    lower = [(px, py + size * 1.2) for px, py in reversed(upper)]
    canvas.shape(upper + lower, colour, outline=mix(colour, INK, 0.3), width=1)
    canvas.box((left - pole, top - size * 0.08, left + pole, y + size), INK, radius=pole)


def _wave(t: float) -> float:
    return 8 * t * (0.5 - t) if t < 0.5 else -8 * (t - 0.5) * (1 - t)


def _draw_rose(canvas: Canvas, centre: Point, size: float) -> None:
    x, y = centre
    canvas.disc(centre, size * 0.62, mix(_SEA, PAPER, 0.6), outline=mix(_SEA, INK, 0.35), width=1)
    for dx, dy, name in ((0, -1, "N"), (1, 0, "E"), (0, 1, "S"), (-1, 0, "W")):
        tip = (x + dx * size, y + dy * size)
        side = (x + (dx + dy) * size * 0.2, y + (dy - dx) * size * 0.2)
        other = (x + (dx - dy) * size * 0.2, y + (dy + dx) * size * 0.2)
        canvas.shape([tip, side, centre], INK)
        canvas.shape([tip, other, centre], mix(PAPER, INK, 0.45))
        canvas.text((x + dx * size * 1.4, y + dy * size * 1.4), name, size * 0.6, weight="bold")


@lru_cache
def _palette(land: Colour) -> Image.Image:
    """The flat colours, and the steps between those that meet."""
    grounds = (_SEA, _SHALLOW, _BEACH, land)
    pairs = [*pairwise(grounds), *((_SEA, other) for other in (INK, PAPER, _BEACH))]
    pairs += [(ground, INK) for ground in (_SHALLOW, _BEACH, land)]
    pairs += [(ground, COLOURS[flag]) for flag in FLAGS for ground in (land, _BEACH, INK)]
    colours = {mix(a, b, step / 8): None for a, b in pairs for step in range(9)}
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in colours for value in colour])
    return palette
