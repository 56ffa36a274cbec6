"""A thermometer: what temperature does it show? Grey pictures (mode L)."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator
from PIL import Image

from mmcot_data.sample.drawing import Canvas, Colour, Point
from mmcot_data.sample.skill import ImageSkill, Labels, Wording, conclude

__all__ = ["TEMPERATURES", "THERMOMETER", "Thermometer"]

TEMPERATURES = (0, 10, 20, 30, 40)
"""Degrees Celsius, in the order of the choices."""

_SIZES = ((120, 300), (144, 360), (136, 320), (160, 400))
_LOWEST, _HIGHEST = -10, 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Thermometer:
    """What it shows, in degrees Celsius."""

    temperature: int


def _write(rng: Generator) -> Wording:
    return Wording(
        question="What temperature does the thermometer show?",
        choices=tuple(f"{value} °C" for value in TEMPERATURES),
        caption=str(rng.choice(["a thermometer", "a drawing of a thermometer"])),
    )


def _arrange(_rng: Generator, asked: Sequence[tuple[Wording, int]]) -> Thermometer:
    ((_, answer),) = asked
    return Thermometer(temperature=TEMPERATURES[answer])


def _explain(wording: Wording, answer: int, scene: Thermometer) -> str:
    return f"The top of the liquid is at {scene.temperature}. {conclude(wording.choices[answer])}"


def _draw(rng: Generator, scene: Thermometer) -> Image.Image:
    canvas = Canvas(_SIZES[rng.integers(len(_SIZES))])
    width, height = canvas.width, canvas.height
    edge = width * 0.04
    card = _grey(int(rng.integers(214, 238)))
    canvas.box((edge, edge, width - edge, height - edge), card, radius=width * 0.12)
    centre = width * rng.uniform(0.31, 0.36)
    top, bottom = height * rng.uniform(0.07, 0.09), height * rng.uniform(0.785, 0.805)
    tube, frame = width * 0.115, width * 0.02

    def level(temperature: float) -> float:
        share = (temperature - _LOWEST) / (_HIGHEST - _LOWEST)
        return bottom - share * (bottom - top)

    liquid = _grey(int(rng.integers(44, 72)))
    bulb = (centre, height * 0.865)
    _draw_tube(canvas, bulb, top, (tube, frame), level(scene.temperature), liquid)
    start = centre + tube + frame + width * 0.035
    for value in range(_LOWEST + 5, _HIGHEST, 5):
        y = level(value)
        if value % 10:
            canvas.line([(start, y), (start + width * 0.07, y)], _grey(130), 1)
            continue
        canvas.line([(start, y), (start + width * 0.13, y)], _grey(50), 2)
        canvas.text((start + width * 0.17, y), str(value), width * 0.15, _grey(30), anchor="lm")
    canvas.text((width * 0.78, height * 0.91), "°C", width * 0.15, _grey(30))
    return canvas.finish().convert("L")


def _draw_tube(
    canvas: Canvas,
    bulb: Point,
    top: float,
    widths: tuple[float, float],
    shown: float,
    liquid: Colour,
) -> None:
    (centre, bulb_y), (half, frame) = bulb, widths
    radius = half * 1.75
    for grow, colour in ((frame, _grey(120)), (0.0, _grey(255))):
        canvas.disc(bulb, radius + grow, colour)
        column = (centre - half - grow, top - grow, centre + half + grow, bulb_y)
        canvas.box(column, colour, radius=half + grow)
    canvas.disc(bulb, radius * 0.86, liquid)
    canvas.box((centre - half * 0.76, shown, centre + half * 0.76, bulb_y), liquid)
    canvas.disc((centre - radius * 0.3, bulb_y - radius * 0.3), radius * 0.16, _grey(150))


def _grey(value: int) -> Colour:
    return value, value, value


THERMOMETER = ImageSkill(
    labels=Labels(
        subject="natural science",
        topic="physics",
        category="Units and measurement",
        skill="Read a thermometer",
        grades=(2, 4),
        lecture="The top of the liquid shows the temperature.",
    ),
    write=_write,
    arrange=_arrange,
    draw=_draw,
    explain=_explain,
)
