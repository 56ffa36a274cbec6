"""Accuracy in the nine buckets in which ScienceQA results are printed.

Subject (NAT, SOC, LAN), context (TXT, IMG, NO; text and image overlap), grade (G1-6, G7-12) and
all questions. The rules are those of Multimodal-CoT's utils_evaluate.py, for any set of questions.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mmcot_data.errors import DataError
from mmcot_data.questions import Question
from mmcot_model.evaluation.intervals import wilson_interval

__all__ = ["BUCKETS", "AnswerScores", "Bucket", "BucketScore", "score_answers"]

_LOWER_GRADES = {f"grade{grade}" for grade in range(1, 7)}
_UPPER_GRADES = {f"grade{grade}" for grade in range(7, 13)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """A group of questions with an accuracy of its own."""

    label: str
    """Column head in tables."""
    title: str
    holds: Callable[[Question], bool]


BUCKETS: Mapping[str, Bucket] = {
    "acc_natural": Bucket(
        label="NAT", title="natural science", holds=lambda q: q.subject == "natural science"
    ),
    "acc_social": Bucket(
        label="SOC", title="social science", holds=lambda q: q.subject == "social science"
    ),
    "acc_language": Bucket(
        label="LAN", title="language science", holds=lambda q: q.subject == "language science"
    ),
    "acc_has_text": Bucket(label="TXT", title="has a hint", holds=lambda q: bool(q.hint)),
    "acc_has_image": Bucket(label="IMG", title="has an image", holds=lambda q: q.has_image),
    "acc_no_context": Bucket(
        label="NO", title="has neither", holds=lambda q: not q.hint and not q.has_image
    ),
    "acc_grade_1_6": Bucket(
        label="G1-6", title="grades 1 to 6", holds=lambda q: q.grade in _LOWER_GRADES
    ),
    "acc_grade_7_12": Bucket(
        label="G7-12", title="grades 7 to 12", holds=lambda q: q.grade in _UPPER_GRADES
    ),
    "acc_average": Bucket(label="AVG", title="all questions", holds=lambda _: True),
}
"""The buckets by their keys in score files, in the order of published tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketScore:
    """How many questions of a bucket were answered correctly."""

    n: int
    num_correct: int

    @property
    def accuracy(self) -> float | None:
        """Percentage of correct answers; None for an empty bucket."""
        return self.num_correct / self.n * 100 if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the accuracy, in percent; None for an empty bucket."""
        return wilson_interval(self.num_correct, self.n)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerScores:
    """The score of every bucket."""

    buckets: Mapping[str, BucketScore]
    """By the keys of ``BUCKETS``."""
    num_failed: int
    """Questions without an answer."""


def score_answers(questions: Iterable[Question], answers: Mapping[str, int | None]) -> AnswerScores:
    """Score answers against the questions' own.

    Args:
        questions: The questions to score; any set.
        answers: Choice index by question id. A missing or null answer is a failure: it counts as
            wrong, nothing is guessed.

    Raises:
        DataError: If the right answer of a question is hidden.
    """
    questions = list(questions)
    for question in questions:
        if question.answer is None:
            raise DataError(
                f"question {question.question_id!r}: the data set hides its answer; "
                "choose a split that has answers"
            )
    given = {question.question_id: answers.get(question.question_id) for question in questions}
    buckets = {}
    for key, bucket in BUCKETS.items():
        members = [question for question in questions if bucket.holds(question)]
        num_correct = sum(given[question.question_id] == question.answer for question in members)
        buckets[key] = BucketScore(n=len(members), num_correct=num_correct)
    return AnswerScores(
        buckets=buckets, num_failed=sum(answer is None for answer in given.values())
    )
