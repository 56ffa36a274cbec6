"""All scores of a set of predictions, and their JSON form."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mmcot_data.prompts import gold_rationale
from mmcot_data.questions import Question
from mmcot_model.evaluation.buckets import BucketScore, score_answers
from mmcot_model.evaluation.failures import Failures, settled_answers
from mmcot_model.evaluation.predictions import Prediction
from mmcot_model.evaluation.rationale_scores import RationaleScores, score_rationales

__all__ = ["TEACHER_FORCED", "Scores", "Similarity", "evaluate", "rationale_pairs"]

TEACHER_FORCED = (
    "Not what the model writes: each word is its best guess after the gold words before it. "
    "Multimodal-CoT's first version (arXiv 2302.00923v1) reported this figure; it is easier to "
    "reach than that of generated rationales, and not comparable with it."
)
"""What the scores of a teacher-forced decoding are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Similarity:
    """How alike rationales and references are in meaning, for a model of sentences."""

    mean: float | None
    """Mean cosine of the embeddings, times 100; None without rationales."""
    model: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Accuracy in every bucket, and how close the rationales are to their references."""

    buckets: Mapping[str, BucketScore]
    """By the keys of ``mmcot_model.evaluation.buckets.BUCKETS``; all empty where only rationales
    are scored."""
    num_failed: int
    """Questions without an answer, whatever counts for them."""
    failures: Failures
    """What counts for them."""
    rationale: RationaleScores
    similarity: Similarity | None = None
    """Of the rationales; None if it was not asked for."""
    teacher_forced: RationaleScores | None = None
    """Of rationales that were decoded with gold prefixes; None if they were not asked for."""

    def to_json(self) -> dict[str, Any]:
        """The scores with the keys and number formats of Multimodal-CoT's score files, and more.

        ``answer``: percentages as texts with two decimals, null for an empty bucket; ``n``: its
        questions by the same keys; ``interval``: ``low`` and ``high`` end of its 95 % interval;
        ``rationale``: bleu1, bleu4 and rouge, times 100, null where there are no rationales;
        ``num_failed`` and ``failures``. Where they were asked for: ``similarity`` and
        ``teacher_forced_rationale``.
        """
        accuracies = {key: bucket.accuracy for key, bucket in self.buckets.items()}
        intervals = {key: bucket.interval for key, bucket in self.buckets.items()}
        scores: dict[str, Any] = {
            "answer": {
                key: None if accuracy is None else f"{accuracy:.2f}"
                for key, accuracy in accuracies.items()
            },
            "n": {key: bucket.n for key, bucket in self.buckets.items()},
            "interval": {
                key: None if ends is None else {"low": round(ends[0], 2), "high": round(ends[1], 2)}
                for key, ends in intervals.items()
            },
            "num_failed": self.num_failed,
            "failures": self.failures,
            "rationale": asdict(self.rationale),
        }
        if self.similarity is not None:
            scores["similarity"] = asdict(self.similarity)
        if self.teacher_forced is not None:
            scores["teacher_forced_rationale"] = asdict(self.teacher_forced) | {
                "what": TEACHER_FORCED
            }
        return scores


def evaluate(
    questions: Sequence[Question],
    predictions: Iterable[Prediction],
    *,
    rationale_format: str = "QCM-LE",
    failures: Failures = "wrong",
    seed: int = 42,
    answers: bool = True,
) -> Scores:
    """Score predictions.

    Args:
        questions: The questions to score. One without a prediction has no answer and an empty
            rationale; predictions for others are left out.
        predictions: At most one for each question.
        rationale_format: Stage-1 prompt format of the gold rationale that is the reference
            where a prediction brings none.
        failures: What counts for a question without an answer: it is wrong, or a choice is drawn
            for it (see ``mmcot_model.evaluation.failures``).
        seed: Of the draws.
        answers: Whether answers are scored; not where the predictions are those of stage 1.

    Raises:
        DataError: If the right answer of a question is hidden.
    """
    by_id = {prediction.question_id: prediction for prediction in predictions}
    asked = list(questions) if answers else []
    scored = score_answers(asked, settled_answers(asked, by_id, failures, seed))
    unanswered = settled_answers(asked, by_id)
    return Scores(
        buckets=scored.buckets,
        num_failed=sum(answer is None for answer in unanswered.values()),
        failures=failures,
        rationale=score_rationales(rationale_pairs(questions, by_id.values(), rationale_format)),
    )


def rationale_pairs(
    questions: Iterable[Question],
    predictions: Iterable[Prediction],
    rationale_format: str = "QCM-LE",
) -> list[tuple[str, str]]:
    """Rationale and reference of each question; nothing if no question has a rationale.

    Args:
        questions: The questions; one without a rationale has an empty one.
        predictions: At most one for each question.
        rationale_format: As for ``evaluate``.
    """
    by_id = {prediction.question_id: prediction for prediction in predictions}
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
