"""An island with four flags: which one is farthest north? Palette pictures (mode P)."""

from collections.abc import Sequence

from numpy.random import Generator
from PIL import Image

from mmcot_data.sample.island import FLAGS, Island, draw_flag, draw_island, draw_legend
from mmcot_data.sample.skill import ImageSkill, Labels, Wording, conclude

__all__ = ["DIRECTIONS", "MAPS"]

DIRECTIONS = ("north", "south", "east", "west")

_LEGEND = "legend"
_SIDES = {"north": (0.5, 0.17), "south": (0.5, 0.83), "east": (0.88, 0.5), "west": (0.12, 0.5)}
"""Where the flag of a side stands: x from west (0) to east (1), y from north (0) to south (1)."""
_JITTER = (0.07, 0.03)
"""Along the side, and towards it."""


def _write(rng: Generator) -> Wording:
    direction = str(rng.choice(DIRECTIONS))
    further: dict[str, str] = {}
    kind = rng.random()
    if kind < 0.2:
        order = rng.permutation(FLAGS)
        further = {f"choice_{place}.png": str(flag) for place, flag in enumerate(order)}
    elif kind < 0.35:
        further = {"image_2.png": _LEGEND}
    return Wording(
        question=f"Which flag is farthest {direction}?",
        choices=FLAGS,
        caption=str(rng.choice(["a map of an island with four flags", "an island with flags"])),
        asked=(direction,),
        further_files=further,
    )


def _arrange(rng: Generator, asked: Sequence[tuple[Wording, int]]) -> Island:
    ((wording, answer),) = asked
    (direction,) = wording.asked
    others = [flag for flag in FLAGS if flag != FLAGS[answer]]
    free = [side for side in DIRECTIONS if side != direction]
    sides = dict(zip(rng.permutation(others).tolist(), free, strict=True))
    sides[FLAGS[answer]] = direction
    return Island(sides=sides, flags={flag: _place(rng, sides[flag]) for flag in FLAGS})


def _place(rng: Generator, side: str) -> tuple[float, float]:
    x, y = _SIDES[side]
    along, towards = rng.uniform(-1, 1, 2) * _JITTER
    if side in {"north", "south"}:
        return float(x + along), float(y + towards)
    return float(x + towards), float(y + along)


def _explain(wording: Wording, answer: int, scene: Island) -> str:
    *first, last = (f"{flag} is {scene.sides[flag]}" for flag in FLAGS)
    return f"On the map, {', '.join(first)}, and {last}. {conclude(wording.choices[answer])}"


def _draw_further(name: str) -> Image.Image:
    return draw_legend() if name == _LEGEND else draw_flag(name)


MAPS = ImageSkill(
    labels=Labels(
        subject="social science",
        topic="geography",
        category="Maps",
        skill="Find directions on a map",
        grades=(2, 6),
        lecture="A compass rose shows north, south, east, and west.",
    ),
    write=_write,
    arrange=_arrange,
    draw=draw_island,
    explain=_explain,
    draw_further=_draw_further,
)
