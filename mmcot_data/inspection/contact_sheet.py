"""Lay cards out on a sheet: each has two lines of text and a few panels side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image, ImageFont

    _Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

__all__ = ["Card", "draw_contact_sheet"]

_PAPER, _INK, _GREY, _LINE = (255, 255, 255), (34, 40, 49), (106, 115, 125), (218, 222, 227)
_MAX_WIDTH = 1600
_MARGIN, _CARD_GAP, _PANEL_GAP = 32, 32, 8
_TITLE_SIZE, _TEXT_SIZE = 28, 15
_LEADING = 1.5
"""Height of a line beside that of its letters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Panels side by side under two lines of text."""

    title: str
    note: str
    panels: Sequence["Image.Image"]


def draw_contact_sheet(title: str, notes: Sequence[str], cards: Sequence[Card]) -> "Image.Image":
    """Draw the title in large letters, the notes as lines below it, and the cards row by row.

    Every panel has the place of the widest, so that panels of one kind stand below each other.

    Args:
        title: One line.
        notes: Lines.
        cards: At least one; each has at least one panel.
    """
    from PIL import Image, ImageDraw, ImageFont

    title_font, font = (ImageFont.load_default(size) for size in (_TITLE_SIZE, _TEXT_SIZE))
    title_height, line = round(_TITLE_SIZE * _LEADING), round(_TEXT_SIZE * _LEADING)
    text_height = 2 * line + _PANEL_GAP // 2
    place = max(panel.width for card in cards for panel in card.panels) + _PANEL_GAP
    card_width = place * max(len(card.panels) for card in cards) - _PANEL_GAP
    fitting = (_MAX_WIDTH - 2 * _MARGIN + _CARD_GAP) // (card_width + _CARD_GAP)
    columns = min(len(cards), max(1, fitting))
    rows = [cards[start : start + columns] for start in range(0, len(cards), columns)]
    heights = [max(panel.height for card in row for panel in card.panels) for row in rows]

    text_width = max(title_font.getlength(title), *(font.getlength(note) for note in notes))
    width = max(columns * (card_width + _CARD_GAP) - _CARD_GAP, math.ceil(text_width))
    header = title_height + line * len(notes)
    height = header + sum(_CARD_GAP + text_height + panels for panels in heights)
    sheet = Image.new("RGB", (width + 2 * _MARGIN, height + 2 * _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, _INK, title_font)
    top = _MARGIN + title_height
    for note in notes:
        draw.text((_MARGIN, top), note, _GREY, font)
        top += line
    for row, panels_height in zip(rows, heights, strict=True):
        top += _CARD_GAP
        for column, card in enumerate(row):
            left = _MARGIN + column * (card_width + _CARD_GAP)
            draw.text((left, top), _shortened(card.title, font, card_width), _INK, font)
            draw.text((left, top + line), _shortened(card.note, font, card_width), _GREY, font)
            for number, panel in enumerate(card.panels):
                x, y = left + number * place, top + text_height
                sheet.paste(panel, (x, y))
                draw.rectangle((x - 1, y - 1, x + panel.width, y + panel.height), outline=_LINE)
        top += text_height + panels_height
    return sheet


def _shortened(text: str, font: "_Font", width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
