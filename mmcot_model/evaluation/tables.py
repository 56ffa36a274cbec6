"""Scores as lines of text, for terminals and Markdown files."""

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from mmcot_model.evaluation.buckets import BUCKETS
from mmcot_model.evaluation.rationale_scores import RationaleScores
from mmcot_model.evaluation.report import TEACHER_FORCED, Scores

__all__ = ["markdown_table", "render_table", "shown_interval"]

_WIDTH = 400
"""Wider than any table: none is folded."""


def render_table(scores: Scores) -> str:
    """The scores: a row a bucket, and sentences about failures and rationales."""
    lines = []
    if scores.buckets["acc_average"].n:
        rows = [
            (
                BUCKETS[key].label,
                BUCKETS[key].title,
                str(score.n),
                "-" if score.accuracy is None else f"{score.accuracy:.2f}",
                shown_interval(score.interval),
            )
            for key, score in scores.buckets.items()
        ]
        heads = ("bucket", "questions", "n", "accuracy", "95% interval")
        counted = (
            "count as wrong"
            if scores.failures == "wrong"
            else "count as one of five options, drawn at random as in the reference"
        )
        lines += [markdown_table(heads, rows, num_text_columns=2), ""]
        lines.append(f"{scores.num_failed} questions without an answer {counted}.")
    else:
        lines.append("Rationales only: there are no answers to score.")
    lines.append(f"Rationales: {_shown(scores.rationale)}.")
    if scores.similarity is not None and scores.similarity.mean is not None:
        lines.append(
            f"Sentence similarity: {scores.similarity.mean:.2f} ({scores.similarity.model})."
        )
    if scores.teacher_forced is not None:
        lines.append(f"Teacher-forced rationales: {_shown(scores.teacher_forced)}.")
        lines.append(TEACHER_FORCED)
    return "\n".join(lines)


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, num_text_columns: int = 1
) -> str:
    """A table whose first columns hold text, and the others numbers."""
    table = Table(box=box.MARKDOWN)
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < num_text_columns else "right")
    for row in rows:
        table.add_row(*row)
    buffer = io.StringIO()
    console = Console(file=buffer, width=_WIDTH, color_system=None, markup=False, emoji=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines() if line.strip())


def shown_interval(interval: tuple[float, float] | None) -> str:
    """Both ends with a decimal; a dash where there is no interval."""
    return "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f}"


def _shown(scores: RationaleScores) -> str:
    values = {"BLEU-1": scores.bleu1, "BLEU-4": scores.bleu4, "ROUGE-L": scores.rouge}
    texts = [f"{name} {value:.2f}" for name, value in values.items() if value is not None]
    return ", ".join(texts) or "none"
