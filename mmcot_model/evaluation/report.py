"""All scores of a set of predictions, as JSON and as a table."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mmcot_data.prompts import gold_rationale
from mmcot_data.questions import Question
from mmcot_model.evaluation.buckets import BUCKETS, BucketScore, score_answers
from mmcot_model.evaluation.predictions import Prediction
from mmcot_model.evaluation.rationale_scores import RationaleScores, score_rationales

__all__ = ["Scores", "evaluate", "render_table"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Accuracy in every bucket, and how close the rationales are to their references."""

    buckets: Mapping[str, BucketScore]
    """By the keys of ``mmcot_model.evaluation.buckets.BUCKETS``."""
    num_failed: int
    """Questions without an answer; they count as wrong."""
    rationale: RationaleScores

    def to_json(self) -> dict[str, Any]:
        """The scores with the keys and number formats of Multimodal-CoT's score files.

        ``answer``: percentages as texts with two decimals, null for an empty bucket; ``n``: its
        questions by the same keys; ``rationale``: bleu1, bleu4 and rouge, times 100, null where
        there are no rationales; ``num_failed``.
        """
        accuracies = {key: bucket.accuracy for key, bucket in self.buckets.items()}
        return {
            "answer": {
                key: None if accuracy is None else f"{accuracy:.2f}"
                for key, accuracy in accuracies.items()
            },
            "n": {key: bucket.n for key, bucket in self.buckets.items()},
            "num_failed": self.num_failed,
            "rationale": asdict(self.rationale),
        }


def evaluate(
    questions: Sequence[Question],
    predictions: Iterable[Prediction],
    *,
    rationale_format: str = "QCM-LE",
) -> Scores:
    """Score predictions.

    Args:
        questions: The questions to score. One without a prediction counts as answered wrongly,
            with an empty rationale; predictions for others are left out.
        predictions: At most one for each question.
        rationale_format: Stage-1 prompt format of the gold rationale that is the reference
            where a prediction brings none.

    Raises:
        DataError: If the right answer of a question is hidden.
    """
    by_id = {prediction.question_id: prediction for prediction in predictions}
    answers = score_answers(questions, {key: value.answer for key, value in by_id.items()})
    return Scores(
        buckets=answers.buckets,
        num_failed=answers.num_failed,
        rationale=score_rationales(_rationale_pairs(questions, by_id, rationale_format)),
    )


def render_table(scores: Scores) -> str:
    """The scores as lines of text, for terminals and Markdown files."""
    table = Table(box=box.MARKDOWN)
    table.add_column("bucket")
    table.add_column("questions")
    table.add_column("n", justify="right")
    table.add_column("accuracy", justify="right")
    for key, score in scores.buckets.items():
        bucket = BUCKETS[key]
        accuracy = "-" if score.accuracy is None else f"{score.accuracy:.2f}"
        table.add_row(bucket.label, bucket.title, str(score.n), accuracy)
    buffer = io.StringIO()
    Console(file=buffer, width=80, color_system=None).print(table)
    lines = [line.rstrip() for line in buffer.getvalue().splitlines() if line.strip()]
    lines += ["", f"{scores.num_failed} questions without an answer count as wrong."]
    rationale = {
        "BLEU-1": scores.rationale.bleu1,
        "BLEU-4": scores.rationale.bleu4,
        "ROUGE-L": scores.rationale.rouge,
    }
    values = [f"{name} {value:.2f}" for name, value in rationale.items() if value is not None]
    lines.append("Rationales: " + (", ".join(values) or "none") + ".")
    return "\n".join(lines)


def _rationale_pairs(
    questions: Iterable[Question], by_id: Mapping[str, Prediction], rationale_format: str
) -> list[tuple[str, str]]:
    asked = [(question, by_id.get(question.question_id)) for question in questions]
    if not any(prediction and prediction.rationale is not None for _, prediction in asked):
        return []
    pairs = []
    for question, prediction in asked:
        reference = prediction.reference_rationale if prediction else None
        if reference is None:
            reference = gold_rationale(question, rationale_format)
        pairs.append(((prediction and prediction.rationale) or "", reference))
    return pairs
