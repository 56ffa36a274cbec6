"""Two bar magnets: do they attract or repel each other? Transparent RGBA pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator
from PIL import Image

from mmcot_data.sample.drawing import COLOURS, INK, PAPER, Canvas, mix
from mmcot_data.sample.skill import ImageSkill, Labels, Wording, conclude

__all__ = ["MAGNETS", "Magnets"]

_SIZES = ((400, 150), (420, 210), (360, 160), (480, 180))
_COLOURS = {"north": COLOURS["red"], "south": COLOURS["blue"]}
_OPPOSITE = {"north": "south", "south": "north"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Magnets:
    """The two poles that face each other."""

    left: str
    right: str


def _write(rng: Generator) -> Wording:
    return Wording(
        question="Do these magnets attract or repel each other?",
        choices=("attract", "repel"),
        hint="The picture shows two bar magnets.",
        caption=str(rng.choice(["two bar magnets side by side", "a picture of two bar magnets"])),
    )


def _arrange(rng: Generator, asked: Sequence[tuple[Wording, int]]) -> Magnets:
    ((_, answer),) = asked
    left = str(rng.choice(["north", "south"]))
    return Magnets(left=left, right=_OPPOSITE[left] if answer == 0 else left)


def _explain(wording: Wording, answer: int, scene: Magnets) -> str:
    rule = "Opposite poles attract." if scene.left != scene.right else "Like poles repel."
    return (
        f"The {scene.left} pole of one magnet is next to the {scene.right} pole of the other "
        f"magnet. {rule} {conclude(wording.choices[answer])}"
    )


def _draw(rng: Generator, scene: Magnets) -> Image.Image:
    canvas = Canvas(_SIZES[rng.integers(len(_SIZES))], background=None)
    width, height = canvas.width, canvas.height
    margin = width * rng.uniform(0.025, 0.05)
    gap = width * rng.uniform(0.05, 0.09)
    thick = min(height * rng.uniform(0.56, 0.64), width * 0.25)
    top = (height - thick) / 2 + height * rng.uniform(-0.05, 0.05)
    length = (width - 2 * margin - gap) / 2
    poles = ((_OPPOSITE[scene.left], scene.left), (scene.right, _OPPOSITE[scene.right]))
    for place, pair in enumerate(poles):
        _draw_magnet(canvas, margin + place * (length + gap), top, length, thick, pair)
    return canvas.finish()


def _draw_magnet(
    canvas: Canvas, left: float, top: float, length: float, thick: float, poles: tuple[str, str]
) -> None:
    radius = thick * 0.14
    bottom, right, middle = top + thick, left + length, left + length / 2
    shadow = (*INK, 46)
    canvas.box((left + 3, top + 5, right + 3, bottom + 5), shadow, radius=radius)
    halves = (
        (left, middle, (True, False, False, True)),
        (middle, right, (False, True, True, False)),
    )
    for pole, (start, end, corners) in zip(poles, halves, strict=True):
        colour = _COLOURS[pole]
        body = (start, top, end, bottom)
        canvas.box(body, mix(colour, INK, 0.28), radius=radius, corners=corners)
        face = (start, top, end, bottom - thick * 0.08)
        canvas.box(face, colour, radius=radius, corners=corners)
        shine = (start + radius, top + thick * 0.08, end - radius, top + thick * 0.15)
        canvas.box(shine, mix(colour, PAPER, 0.35), radius=thick * 0.04)
        place = ((start + end) / 2, top + thick * 0.5)
        canvas.text(place, pole[0].upper(), thick * 0.52, PAPER, weight="bold")


MAGNETS = ImageSkill(
    labels=Labels(
        subject="natural science",
        topic="physics",
        category="Magnets",
        skill="Tell if two magnets attract or repel",
        grades=(3, 5),
        lecture="Opposite poles of magnets attract. Like poles repel.",
    ),
    write=_write,
    arrange=_arrange,
    draw=_draw,
    explain=_explain,
)
