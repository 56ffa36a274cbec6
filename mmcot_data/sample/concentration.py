"""Two beakers with particles: which solution is more concentrated? RGB pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator
from PIL import Image

from mmcot_data.sample.drawing import COLOURS, INK, PAPER, Box, Canvas, mix
from mmcot_data.sample.skill import ImageSkill, Labels, Wording, conclude

__all__ = ["CONCENTRATION", "Beakers"]

MAX_PARTICLES = 5

_SIZES = ((400, 300), (440, 320), (360, 300), (480, 300))
_GLASS = (138, 170, 194)
_WATER = (214, 236, 248)
_ROWS, _COLUMNS = 3, 3
_CELLS = (4, 0, 8, 2, 6)
"""Where the first, second, … particle is: the patterns of a die."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beakers:
    """Number of particles in each beaker."""

    left: int
    right: int


def _write(rng: Generator) -> Wording:
    return Wording(
        question="Which solution is more concentrated?",
        choices=("Solution A", "Solution B", "neither"),
        hint="Each pink ball is one particle.",
        caption=str(rng.choice(["two beakers with pink balls", "a picture of two beakers"])),
    )


def _arrange(rng: Generator, asked: Sequence[tuple[Wording, int]]) -> Beakers:
    ((_, answer),) = asked
    if answer == 2:
        same = int(rng.integers(1, MAX_PARTICLES + 1))
        return Beakers(left=same, right=same)
    pairs = [(many, few) for many in range(2, MAX_PARTICLES + 1) for few in range(1, many)]
    many, few = pairs[rng.integers(len(pairs))]
    return Beakers(left=many, right=few) if answer == 0 else Beakers(left=few, right=many)


def _explain(wording: Wording, answer: int, scene: Beakers) -> str:
    conclusion = conclude(wording.choices[answer])
    return (
        f"Solution A has {_particles(scene.left)}. Solution B has {_particles(scene.right)}. "
        f"Both have the same volume. {conclusion}"
    )


def _particles(count: int) -> str:
    return f"{count} pink particle" if count == 1 else f"{count} pink particles"


def _draw(rng: Generator, scene: Beakers) -> Image.Image:
    canvas = Canvas(_SIZES[rng.integers(len(_SIZES))])
    half = canvas.width / 2
    top = canvas.height * rng.uniform(0.05, 0.09)
    for place, (name, count) in enumerate((("A", scene.left), ("B", scene.right))):
        centre = half * (place + 0.5)
        _draw_beaker(canvas, rng, centre, top, count)
        size = canvas.height * 0.075
        label = (centre, canvas.height * 0.925)
        canvas.text(label, f"Solution {name}", size, weight="bold")
    return canvas.finish()


def _draw_beaker(canvas: Canvas, rng: Generator, centre: float, top: float, count: int) -> None:
    half, wall, radius = canvas.width * 0.2, canvas.height * 0.012, canvas.height * 0.07
    left, right, bottom = centre - half, centre + half, top + canvas.height * 0.76
    surface = top + canvas.height * 0.15
    feet = (False, False, True, True)
    canvas.oval((left, bottom - 7, right, bottom + 8), mix(PAPER, INK, 0.14))
    canvas.box((left, top, right, bottom), _GLASS, radius=radius, corners=feet)
    inside = (left + wall, top, right - wall, bottom - wall)
    canvas.box(inside, mix(PAPER, _WATER, 0.3), radius=radius - wall, corners=feet)
    water = (left + wall, surface, right - wall, bottom - wall)
    canvas.box(water, _WATER, radius=radius - wall, corners=feet)
    canvas.box((left + wall, surface, right - wall, surface + wall), mix(_WATER, _GLASS, 0.6))
    lip = canvas.width * 0.012
    canvas.box((left - lip, top - wall, right + lip, top + wall), _GLASS, radius=wall)
    _draw_particles(canvas, rng, water, count)


def _draw_particles(canvas: Canvas, rng: Generator, water: Box, count: int) -> None:
    left, top, right, bottom = water
    step_x, step_y = (right - left) * 0.94 / _COLUMNS, (bottom - top) * 0.94 / _ROWS
    radius = min(step_x, step_y) * 0.5
    for cell in _CELLS[:count]:
        row, column = divmod(cell, _COLUMNS)
        shift_x, shift_y = rng.uniform(-0.1, 0.1, 2) * radius
        x = (left + right) / 2 + (column - (_COLUMNS - 1) / 2) * step_x + shift_x
        y = (top + bottom) / 2 + (row - (_ROWS - 1) / 2) * step_y + shift_y
        _draw_particle(canvas, x, y, radius)


def _draw_particle(canvas: Canvas, x: float, y: float, radius: float) -> None:
    pink = COLOURS["pink"]
    canvas.disc((x, y), radius, mix(pink, INK, 0.25))
    canvas.disc((x, y - radius * 0.05), radius * 0.94, pink)
    canvas.disc((x - radius * 0.32, y - radius * 0.38), radius * 0.2, mix(pink, PAPER, 0.6))


CONCENTRATION = ImageSkill(
    labels=Labels(
        subject="natural science",
        topic="chemistry",
        category="Solutions",
        skill="Find the more concentrated solution",
        grades=(7, 9),
        lecture="More particles in the same volume make a higher concentration.",
    ),
    write=_write,
    arrange=_arrange,
    draw=_draw,
    explain=_explain,
)
