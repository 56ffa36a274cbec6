"""A bar chart: how many more students chose one colour than another? RGB pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator
from PIL import Image

from mmcot_data.sample.drawing import COLOURS, INK, PAPER, Box, Canvas, mix
from mmcot_data.sample.skill import ImageSkill, Labels, Wording, conclude

__all__ = ["BARS", "CHARTS", "MAX_BAR", "Chart"]

BARS = ("blue", "green", "red", "yellow")
"""From left to right."""
MAX_BAR = 5

_SIZES = ((400, 300), (440, 330), (480, 340), (372, 280))
_CHOICES = (1, 2, 3, 4)
_SHADOW = (206, 212, 218)
_PANELS = ((237, 242, 247), (245, 241, 233), (238, 244, 236))


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """Height of every bar, 1 to ``MAX_BAR``, by colour."""

    bars: dict[str, int]


def _write(rng: Generator) -> Wording:
    return _wording(rng, rng.permutation(BARS)[:2].tolist())


def _write_again(rng: Generator, first: Wording) -> Wording:
    others = [bar for bar in BARS if bar not in first.asked]
    return _wording(rng, rng.permutation(others).tolist())


def _wording(rng: Generator, asked: list[str]) -> Wording:
    more, less = asked
    return Wording(
        question=f"How many more students chose {more} than {less}?",
        choices=tuple(str(value) for value in _CHOICES),
        hint="Each student chose one color.",
        caption=str(rng.choice(["a bar chart with four bars", "a chart of favorite colors"])),
        asked=(more, less),
    )


def _arrange(rng: Generator, asked: Sequence[tuple[Wording, int]]) -> Chart:
    bars = {bar: int(rng.integers(1, MAX_BAR + 1)) for bar in BARS}
    for wording, answer in asked:
        more, less = wording.asked
        difference = _CHOICES[answer]
        bars[less] = int(rng.integers(1, MAX_BAR - difference + 1))
        bars[more] = bars[less] + difference
    return Chart(bars=bars)


def _explain(wording: Wording, answer: int, scene: Chart) -> str:
    more, less = wording.asked
    many, few = scene.bars[more], scene.bars[less]
    return (
        f"The {more} bar shows {_students(many)}. The {less} bar shows {_students(few)}. "
        f"{many} - {few} = {many - few}. {conclude(wording.choices[answer])}"
    )


def _students(count: int) -> str:
    return f"{count} student" if count == 1 else f"{count} students"


def _draw(rng: Generator, scene: Chart) -> Image.Image:
    canvas = Canvas(_SIZES[rng.integers(len(_SIZES))])
    width, height = canvas.width, canvas.height
    panel_colour = _PANELS[rng.integers(len(_PANELS))]
    left, right = width * rng.uniform(0.105, 0.12), width * 0.97
    top, bottom = height * rng.uniform(0.155, 0.175), height * rng.uniform(0.85, 0.87)
    step = (bottom - top) / MAX_BAR
    canvas.text((width * 0.54, height * 0.06), "Favorite colors", height * 0.068, weight="bold")
    panel = (left, top - height * 0.03, right, bottom)
    canvas.box(panel, panel_colour, radius=height * 0.03, corners=(True, True, False, False))
    for value in range(MAX_BAR + 1):
        y = bottom - value * step
        canvas.line([(left, y), (right, y)], PAPER if value else INK, 1.5)
        canvas.text((left - width * 0.02, y), str(value), height * 0.055, anchor="rm")
    slot = (right - left) / len(BARS)
    half = slot * rng.uniform(0.35, 0.39)
    for place, bar in enumerate(BARS):
        centre = left + (place + 0.5) * slot
        top_of_bar = bottom - scene.bars[bar] * step
        _draw_bar(canvas, (centre - half, top_of_bar, centre + half, bottom), bar)
        canvas.text((centre, height * 0.925), bar, height * 0.062)
    canvas.line([(left, bottom), (right, bottom)], INK, 1.5)
    return canvas.finish()


def _draw_bar(canvas: Canvas, box: Box, bar: str) -> None:
    left, top, right, bottom = box
    colour, rounded = COLOURS[bar], (True, True, False, False)
    radius = (right - left) * 0.09
    shadow = (left + 3, top + 3, right + 3, bottom)
    canvas.box(shadow, _SHADOW, radius=radius, corners=rounded)
    canvas.box(box, colour, radius=radius, corners=rounded)
    shine = (left + radius, top + radius, left + radius * 1.9, bottom - radius)
    canvas.box(shine, mix(colour, PAPER, 0.25), radius=radius * 0.45)


CHARTS = ImageSkill(
    labels=Labels(
        subject="natural science",
        topic="science-and-engineering-practices",
        category="Data and graphs",
        skill="Read a bar chart",
        grades=(5, 9),
        lecture="The top of a bar shows a number. Subtract to compare.",
    ),
    write=_write,
    write_again=_write_again,
    shared_share=0.7,
    arrange=_arrange,
    draw=_draw,
    explain=_explain,
)
