"""Training curves and the contact sheet, as PNG."""

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from mmcot_data.images import decode_rgb
from mmcot_data.questions import Question
from pipelines.reported_runs import ReportedRun, answered, is_right, letter, options, rationale

__all__ = ["SHEET_SIZE", "draw_contact_sheet", "draw_curves"]

_COLUMNS, _ROWS = 4, 3
SHEET_SIZE = _COLUMNS * _ROWS
"""Questions on a contact sheet."""


def draw_curves(runs: Sequence[ReportedRun]) -> bytes:
    """Loss by step, an axis a stage and a line a run."""
    stages = ("rationale", "answer")
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 3.6), layout="constrained")
        for axes, stage in zip(figure.subplots(1, 2), stages, strict=True):
            for run in runs:
                path = run.folder / stage / "history.json"
                if path.is_file():
                    history = [e for e in json.loads(path.read_text()) if "loss" in e]
                    axes.plot(
                        [entry["step"] for entry in history],
                        [entry["loss"] for entry in history],
                        label=run.title,
                    )
            axes.set(title=f"{stage} stage", xlabel="step", yscale="log")
            axes.grid(alpha=0.3)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(frameon=False)
        figure.axes[0].set_ylabel("training loss per token")
        return _png(figure)


def draw_contact_sheet(
    run: ReportedRun, questions: Sequence[Question], pictures: Mapping[str, Path]
) -> bytes:
    """Pictures with their questions, and the rationales and answers of a run."""
    columns, rows = _COLUMNS, _ROWS
    figure = Figure(figsize=(4 * columns, 3.8 * rows))
    for place, question in enumerate(questions):
        left, bottom = place % columns / columns, 1 - (place // columns + 1) / rows
        picture = figure.add_axes((left + 0.015, bottom + 0.165, 1 / columns - 0.03, 0.15))
        picture.axis("off")
        if question.question_id in pictures:
            path = pictures[question.question_id]
            picture.imshow(decode_rgb(path.read_bytes(), str(path)))
        else:
            picture.text(0.5, 0.5, "(text only)", ha="center", va="center", color="grey")
        text = figure.add_axes((left + 0.015, bottom + 0.01, 1 / columns - 0.03, 0.155))
        text.axis("off")
        right = is_right(run, question)
        color = "#1b7f3b" if right else "#b3261e"
        text.text(0, 1, _wrap(question.question, 40), va="top", fontsize=9.5, weight="bold")
        text.text(0, 0.76, _wrap(options(question), 56), va="top", fontsize=8, color="#444444")
        text.text(0, 0.52, _wrap(rationale(run, question), 58), va="top", fontsize=8)
        verdict = f"answers {answered(run, question)}: " + (
            "right" if right else f"wrong, it is {letter(question.answer)}"
        )
        text.text(0, 0.04, verdict, va="bottom", fontsize=9.5, weight="bold", color=color)
        text.set(xlim=(0, 1), ylim=(0, 1))
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, facecolor="white")
    return buffer.getvalue()


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))
