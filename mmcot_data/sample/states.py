"""Is milk a solid or a liquid? Choice pictures only (transparent RGBA icons)."""

from numpy.random import Generator
from PIL import Image

from mmcot_data.sample.drawing import INK, PAPER, Canvas, Colour, mix
from mmcot_data.sample.skill import Exercise, Labels, TextSkill, Wording, conclude

__all__ = ["STATES"]

_LIQUIDS: dict[str, tuple[str, Colour]] = {
    "water": ("glass", (120, 190, 235)),
    "milk": ("glass", (248, 246, 238)),
    "juice": ("glass", (245, 150, 50)),
    "oil": ("drop", (235, 190, 50)),
    "honey": ("drop", (214, 140, 30)),
    "rain": ("drop", (70, 150, 220)),
    "tea": ("cup", (150, 90, 50)),
    "soup": ("cup", (220, 110, 60)),
}
_SOLIDS: dict[str, tuple[str, Colour]] = {
    "wood": ("block", (190, 140, 90)),
    "ice": ("block", (190, 225, 245)),
    "brick": ("block", (190, 85, 65)),
    "rubber": ("ball", (90, 100, 115)),
    "glass": ("ball", (150, 200, 220)),
    "iron": ("ball", (130, 140, 150)),
    "gold": ("coin", (235, 185, 55)),
    "silver": ("coin", (190, 198, 206)),
}
_SIZE = (128, 128)


def _write(rng: Generator) -> Exercise:
    pair = (str(rng.choice(list(_SOLIDS))), str(rng.choice(list(_LIQUIDS))))
    answer = int(rng.integers(2))
    order = rng.permutation(pair)
    wording = Wording(
        question=f"Is {pair[answer]} a solid or a liquid?",
        choices=("solid", "liquid"),
        hint="A solid keeps its shape. A liquid flows.",
        further_files={f"choice_{place}.png": str(name) for place, name in enumerate(order)},
    )
    behaviour = ("keeps its shape", "flows")[answer]
    return Exercise(
        wording=wording,
        answer=answer,
        solution=f"The {pair[answer]} {behaviour}. {conclude(wording.choices[answer])}",
    )


def _draw_further(name: str) -> Image.Image:
    shape, colour = (_LIQUIDS | _SOLIDS)[name]
    canvas = Canvas(_SIZE, background=None)
    canvas.oval((24, 104, 104, 118), (*INK, 40))
    _SHAPES[shape](canvas, colour)
    return canvas.finish()


def _draw_glass(canvas: Canvas, colour: Colour) -> None:
    canvas.shape(
        [(34, 18), (94, 18), (84, 112), (44, 112)],
        mix(PAPER, (200, 225, 240), 0.6),
        outline=mix(PAPER, INK, 0.45),
        width=2,
    )
    canvas.shape([(38, 42), (90, 42), (83, 109), (45, 109)], colour)
    canvas.oval((38, 37, 90, 47), mix(colour, PAPER, 0.35))


def _draw_drop(canvas: Canvas, colour: Colour) -> None:
    canvas.shape([(64, 12), (91.7, 60), (36.3, 60)], colour)
    canvas.disc((64, 76), 32, colour)
    canvas.oval((46, 66, 56, 88), mix(colour, PAPER, 0.55))


def _draw_cup(canvas: Canvas, colour: Colour) -> None:
    edge = mix(PAPER, INK, 0.45)
    canvas.oval((80, 48, 114, 86), (240, 244, 248), outline=edge, width=5)
    canvas.box(
        (24, 40, 96, 110),
        (240, 244, 248),
        radius=22,
        outline=edge,
        width=2,
        corners=(False, False, True, True),
    )
    canvas.oval((24, 30, 96, 52), colour, outline=edge, width=2)


def _draw_block(canvas: Canvas, colour: Colour) -> None:
    canvas.shape([(22, 50), (44, 28), (106, 28), (84, 50)], mix(colour, PAPER, 0.35))
    canvas.shape([(84, 50), (106, 28), (106, 88), (84, 110)], mix(colour, INK, 0.3))
    canvas.shape([(22, 50), (84, 50), (84, 110), (22, 110)], colour)


def _draw_ball(canvas: Canvas, colour: Colour) -> None:
    canvas.disc((64, 66), 44, mix(colour, INK, 0.25))
    canvas.disc((62, 63), 41, colour)
    canvas.disc((48, 48), 11, mix(colour, PAPER, 0.55))


def _draw_coin(canvas: Canvas, colour: Colour) -> None:
    canvas.disc((64, 66), 44, mix(colour, INK, 0.3))
    canvas.disc((64, 63), 43, colour)
    canvas.disc((64, 63), 34, mix(colour, PAPER, 0.3), outline=mix(colour, INK, 0.25), width=2)


_SHAPES = {
    "glass": _draw_glass,
    "drop": _draw_drop,
    "cup": _draw_cup,
    "block": _draw_block,
    "ball": _draw_ball,
    "coin": _draw_coin,
}

STATES = TextSkill(
    labels=Labels(
        subject="natural science",
        topic="chemistry",
        category="States of matter",
        skill="Tell solids from liquids",
        grades=(1, 8),
        lecture="Matter can be a solid, a liquid, or a gas.",
    ),
    write=_write,
    draw_further=_draw_further,
)
