"""One reply of mmcot-predict as PNG: choices, attention over the picture, and the gate.

Everything is drawn into one axes whose unit is the inch, from top to bottom. Shape suffixes:
P = patches, S = source tokens.
"""

import io
import textwrap
import warnings
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mmcot_data.extraction.spec_encoder import find_alpha
from mmcot_data.questions import OPTION_LETTERS
from mmcot_model.trained.asking import Reply
from mmcot_model.trained.explanation import Explanation
from mmcot_model.trained.run import TrainedRun
from pipelines.asked_question import AskedQuestion
from pipelines.attention_panel import (
    draw_attention,
    draw_picture,
    panel_height,
    picture_title,
    put_text,
)
from pipelines.prediction_text import describe_answer, parts_by_encoder

__all__ = ["draw_prediction"]

_WIDTH, _MARGIN, _GAP = 11.0, 0.35, 0.2
_PANEL_WIDTH = (_WIDTH - 2 * _MARGIN - 2 * _GAP) / 3
_BAR_LEFT, _BAR_RIGHT, _BAR_HEIGHT = _MARGIN + 2 * (_PANEL_WIDTH + _GAP), 0.95, 0.14
_INK, _GREY, _PALE = "#22272e", "#6a737d", "#d8dde3"
_ANSWER, _RIGHT, _WRONG = "#2b6cb0", "#1b7f3b", "#b3261e"
_POINT = 1 / 72
_LEADING = 1.35
_MONO_WIDTH = 0.602
"""Of a letter, in font sizes."""
_SANS_WIDTH = 0.56
"""Of a letter on average, rather more than less."""


def draw_prediction(run: TrainedRun, asked: AskedQuestion, reply: Reply) -> bytes:
    """Draw what was asked, what was replied, and the weights of the fusion.

    Args:
        run: The run that was asked.
        asked: The question; its picture is drawn if it is there.
        reply: What the run replied.

    Returns:
        The PNG.
    """
    sheet = _Sheet()
    question = asked.question
    sheet.write(question.question, size=13, weight="bold")
    if context := f"{question.hint} {asked.caption or ''}".strip():
        sheet.write(context, size=9.5, color=_GREY)
    sheet.skip(0.1)
    _draw_panels(sheet, run, asked, reply)
    _draw_choices(sheet, asked, reply)
    sheet.skip(0.12)
    if reply.rationale is not None:
        given = " (given)" if reply.rationale_source == "given" else ""
        sheet.write(f"Rationale{given}: {reply.rationale}", size=10)
    if "answer" in reply.stages:
        color = _ANSWER
        if question.answer is not None:
            color = _RIGHT if reply.answer == question.answer else _WRONG
        sheet.write(f"Answer: {describe_answer(asked, reply)}", size=11, weight="bold", color=color)
    for name, stage in reply.stages.items():
        if stage.explanation is not None:
            sheet.skip(0.16)
            _draw_gate(sheet, name, stage.explanation)
    sheet.skip(0.1)
    sheet.write(_legend(run, reply), size=7.5, color=_GREY)
    return sheet.png()


@dataclass(slots=True)
class _Sheet:
    """A figure that grows downwards."""

    y: float = _MARGIN
    """Where the next thing begins, in inches from the top."""
    figure: Figure = field(default_factory=lambda: Figure(figsize=(_WIDTH, 1)))
    axes: Axes = field(init=False)

    def __post_init__(self) -> None:
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.axis("off")

    def skip(self, height: float) -> None:
        self.y += height

    def write(self, text: str, *, size: float, color: str = _INK, weight: str = "normal") -> None:
        """A paragraph over the whole width."""
        width = int((_WIDTH - 2 * _MARGIN) / (size * _SANS_WIDTH * _POINT))
        for line in textwrap.wrap(text, width):
            put_text(self.axes, _MARGIN, self.y, line, size=size, color=color, weight=weight)
            self.skip(size * _LEADING * _POINT)
        self.skip(0.04)

    def png(self) -> bytes:
        height = self.y + _MARGIN
        self.figure.set_size_inches(_WIDTH, height)
        self.axes.set(xlim=(0, _WIDTH), ylim=(height, 0), aspect="auto")
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the figure shows a box for it
            self.figure.savefig(buffer, dpi=110, facecolor="white")
        return buffer.getvalue()


def _draw_panels(sheet: _Sheet, run: TrainedRun, asked: AskedQuestion, reply: Reply) -> None:
    """The picture, and what each stage attended to in it; a row for each encoder."""
    explained = {
        name: stage.explanation
        for name, stage in reply.stages.items()
        if stage.explanation is not None and stage.explanation.mean_gate > 0
    }
    for number, spec in enumerate(run.specs if explained else ()):
        image = None
        if asked.picture is not None:
            image = asked.picture.decode(find_alpha(spec.preprocessing))
        height = panel_height(image, spec, _PANEL_WIDTH)
        left = _MARGIN
        if image is not None:
            title = picture_title(image, spec)
            put_text(sheet.axes, left, sheet.y, title, size=9, weight="bold")
            draw_picture(sheet.axes, (left, sheet.y + 0.2, _PANEL_WIDTH, height), image, spec)
            left += _PANEL_WIDTH + _GAP
        for name, explanation in explained.items():
            _, attention_P = list(parts_by_encoder(explanation, run.specs))[number]
            title = f"{name} stage looks at ({spec.encoder}"
            title += f", {attention_P.sum():.0%} of all)" if len(run.specs) > 1 else ")"
            put_text(sheet.axes, left, sheet.y, title, size=9, weight="bold")
            box = (left, sheet.y + 0.2, _PANEL_WIDTH, height)
            draw_attention(sheet.axes, box, image, spec, attention_P)
            left += _PANEL_WIDTH + _GAP
        sheet.skip(height + 0.56)


def _draw_choices(sheet: _Sheet, asked: AskedQuestion, reply: Reply) -> None:
    """A line for each choice, and a bar: its share of the probability."""
    axes, size = sheet.axes, 10.0
    room = _BAR_LEFT if reply.scores else _WIDTH - _MARGIN
    letters = int((room - _MARGIN) / (size * _SANS_WIDTH * _POINT))
    bar_width = _WIDTH - _MARGIN - _BAR_RIGHT - _BAR_LEFT + 0.25
    for index, choice in enumerate(asked.question.choices):
        chosen = "answer" in reply.stages and index == reply.answer
        color, weight = (_ANSWER, "bold") if chosen else (_GREY, "normal")
        if reply.scores:
            share, y = reply.scores[index].probability, sheet.y + 0.03
            for part, tint in ((1.0, _PALE), (share, color)):
                corner = (_BAR_LEFT, y)
                axes.add_patch(Rectangle(corner, bar_width * part, _BAR_HEIGHT, fc=tint, lw=0))
            style = {"color": color, "weight": weight, "ha": "right"}
            put_text(axes, _WIDTH - _MARGIN, sheet.y, f"{share:.1%}", size=size, **style)
        is_right = index == asked.question.answer
        label = f"({OPTION_LETTERS[index]}) {choice}{'  ✓ right' if is_right else ''}"
        for line in textwrap.wrap(label, letters):
            put_text(axes, _MARGIN, sheet.y, line, size=size, weight=weight)
            sheet.skip(size * _LEADING * _POINT)
        sheet.skip(0.06)


def _draw_gate(sheet: _Sheet, name: str, explanation: Explanation) -> None:
    """The source, each token the darker the farther its gate was open."""
    axes, size, colors = sheet.axes, 8.5, mpl.colormaps["Blues"]
    largest = float(explanation.gate_S.max())
    title = f"Gate of the {name} stage: open {explanation.mean_gate:.0%} on average"
    put_text(axes, _MARGIN, sheet.y, title, size=9, weight="bold")
    _draw_scale(axes, colors, _WIDTH - _MARGIN, sheet.y, f"{largest:.0%}")
    sheet.skip(0.24)
    letter, line = size * _MONO_WIDTH * _POINT, size * 1.75 * _POINT
    x = _MARGIN
    for token, gate in zip(explanation.tokens, explanation.gate_S, strict=True):
        if token.startswith("▁") and x > _MARGIN:
            x += letter
        text = token.removeprefix("▁")
        if x + len(text) * letter > _WIDTH - _MARGIN:
            x, sheet.y = _MARGIN, sheet.y + line
        tint = 0.85 * float(gate) / (largest or 1)
        area = (x, sheet.y - 0.02), len(text) * letter, line * 0.86
        axes.add_patch(Rectangle(*area, facecolor=colors(tint), lw=0))
        color = "white" if tint > 0.55 else _INK
        put_text(axes, x, sheet.y, text, size=size, family="monospace", color=color)
        x += len(text) * letter
    sheet.skip(line)


def _draw_scale(axes: Axes, colors: Colormap, right: float, y: float, most: str) -> None:
    """What the colours of tokens mean, up to ``right``."""
    put_text(axes, right, y, most, size=8, color=_GREY, ha="right")
    ramp = colors(np.linspace(0, 0.85, 64))[None]
    axes.imshow(ramp, extent=(right - 1.45, right - 0.4, y + 0.13, y + 0.01), aspect="auto")
    put_text(axes, right - 1.5, y, "shut", size=8, color=_GREY, ha="right")


def _legend(run: TrainedRun, reply: Reply) -> str:
    text = f"Run {run.folder.resolve().name}, prompt format {run.config.prompt_format}. "
    if any(stage.explanation is not None for stage in reply.stages.values()):
        text += (
            "Red: share of a patch in what the tokens attended to, each token counted as far as "
            "its gate was open. Attention shows where the model looked, not why it answered. "
        )
    if reply.scores:
        text += "Bars: probability of “The answer is (X).” among the choices."
    return text
