"""What others published for ScienceQA's whole test split, to print beside one's own scores.

Multimodal-CoT: Zhang et al., arXiv 2302.00923, the main results tables of version 1 (February 2023)
and version 5 (May 2024, TMLR). The two are different experiments: other language model, features,
captions, rationales and decoding. By the code that was released with it, version 1 decoded the
rationales of its rows with vision features behind gold prefixes (teacher forcing), in training and
test; no system that has to write its rationales can be compared with them.

The other rows: the same tables, and the leaderboard of https://github.com/lupantech/ScienceQA.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mmcot_data.questions import Question
from mmcot_model.evaluation.buckets import BUCKETS
from mmcot_model.evaluation.report import Scores
from mmcot_model.evaluation.tables import markdown_table

__all__ = ["PUBLISHED", "PublishedRow", "comparability", "render_paper_table"]

_NUM_TEST = 4241
"""Questions of ScienceQA's test split."""
_DATASET = "scienceqa"
_TEACHER_FORCED = "teacher-forced rationales, not comparable"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """Accuracies that were published, in percent."""

    model: str
    accuracies: tuple[float | None, ...]
    """In the order of ``BUCKETS``; None where none was published."""
    note: str = ""


def _row(model: str, accuracies: str, note: str = "") -> PublishedRow:
    values = tuple(None if text == "-" else float(text) for text in accuracies.split())
    return PublishedRow(model=model, accuracies=values, note=note)


PUBLISHED = (
    _row("Human", "90.23 84.97 87.48 89.60 87.50 88.10 91.59 82.42 88.40"),
    _row("MCAN 95M", "56.08 46.23 58.09 59.43 51.17 55.40 51.65 59.72 54.54"),
    _row("Top-Down 70M", "59.50 54.33 61.82 62.90 54.88 59.79 57.27 62.16 59.02"),
    _row("BAN 112M", "60.88 46.57 66.64 62.61 52.60 65.51 56.83 63.94 59.37"),
    _row("DFAF 74M", "64.03 48.82 63.55 65.88 54.49 64.11 57.12 67.17 60.72"),
    _row("ViLT 113M", "60.48 63.89 60.27 63.20 61.38 57.00 60.72 61.90 61.14"),
    _row("Patch-TRM 90M", "65.19 46.79 65.55 66.96 55.28 64.95 58.04 67.50 61.42"),
    _row("VisualBERT 111M", "59.33 69.18 61.18 62.71 62.17 58.54 62.96 59.92 61.87"),
    _row("UnifiedQA 223M, no CoT", "68.16 69.18 74.91 63.78 61.38 77.84 72.98 65.00 70.12"),
    _row("UnifiedQA 223M with CoT", "71.00 76.04 78.91 66.42 66.53 81.81 77.06 68.82 74.11"),
    _row("GPT-3.5 2-shot", "74.64 69.74 76.00 74.44 67.28 77.42 76.80 68.89 73.97"),
    _row("GPT-3.5 CoT, ALE, davinci-002", "75.44 70.87 78.09 74.68 67.43 79.93 78.23 69.68 75.17"),
    _row("GPT-3.5 CoT, davinci-003", "77.71 68.73 80.18 75.12 67.92 81.81 80.58 69.08 76.47"),
    _row("ChatGPT", "78.82 70.98 83.18 77.37 67.92 86.13 80.72 74.03 78.31"),
    _row("GPT-4", "85.48 72.44 90.27 82.65 71.49 92.89 86.66 79.04 83.99"),
    _row("Chameleon (ChatGPT)", "81.62 70.64 84.00 79.77 70.80 86.62 81.86 76.53 79.93"),
    _row("Chameleon (GPT-4)", "89.83 74.13 89.82 88.27 77.64 92.13 88.03 83.72 86.54"),
    _row("LLaMA-Adapter 6B", "84.37 88.30 84.36 83.72 80.32 86.90 85.83 84.05 85.19"),
    _row("LLaVA 13B", "90.36 95.95 88.00 89.49 88.00 90.66 90.93 90.90 90.92"),
    _row("InstructBLIP 11B", "- - - - 90.70 - - - -"),
    _row(
        "Multimodal-CoT v1, base (UnifiedQA, DETR)",
        "87.52 77.17 85.82 87.88 82.90 86.83 84.65 85.37 84.91",
        _TEACHER_FORCED,
    ),
    _row(
        "Multimodal-CoT v1, large (UnifiedQA, DETR)",
        "95.91 82.00 90.82 95.26 88.80 92.89 92.44 90.31 91.68",
        _TEACHER_FORCED,
    ),
    _row(
        "Multimodal-CoT v5, base (FLAN-Alpaca, ViT, captions)",
        "84.06 92.35 82.18 82.75 82.75 84.74 85.79 84.44 85.31",
    ),
    _row(
        "Multimodal-CoT v5, large (FLAN-Alpaca, ViT, captions)",
        "91.03 93.70 86.64 90.13 88.25 89.48 91.12 89.26 90.45",
    ),
)
"""The rows, baselines first."""


def comparability(questions: Sequence[Question], split: str) -> str | None:
    """Why scores can't be compared with published ones; None if they can.

    Args:
        questions: What was scored.
        split: The split that they are of.
    """
    others = {question.dataset for question in questions} - {_DATASET}
    if others:
        return f"not comparable: questions of {', '.join(sorted(others))}, not of ScienceQA"
    if split != "test":
        return f"not comparable: the split {split}, not test"
    if len(questions) != _NUM_TEST:
        return f"not comparable: {len(questions)} of {_NUM_TEST} questions"
    return None


def render_paper_table(scores: Scores, name: str, reason: str | None) -> str:
    """The published rows and one's own as lines of text.

    Args:
        scores: One's own.
        name: Of one's own row.
        reason: What ``comparability`` says.
    """
    own = PublishedRow(
        model=name,
        accuracies=tuple(bucket.accuracy for bucket in scores.buckets.values()),
        note=reason or "",
    )
    heads = ["model", "note", *(bucket.label for bucket in BUCKETS.values())]
    rows = [
        [row.model, row.note, *("-" if v is None else f"{v:.2f}" for v in row.accuracies)]
        for row in (*PUBLISHED, own)
    ]
    lines = [markdown_table(heads, rows, num_text_columns=2), ""]
    lines.append(
        "Published: arXiv 2302.00923 (v1 and v5 are different experiments; compare with v5) and "
        "the leaderboard of ScienceQA, for its whole test split; an answer that could not be read "
        "counts there as a random choice (--failures random)."
    )
    return "\n".join(lines)
