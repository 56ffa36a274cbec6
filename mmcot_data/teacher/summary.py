"""How well a teacher did: counts, accuracies and votes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmcot_data.growing_artifact import Row
from mmcot_data.questions import Question
from mmcot_data.rationales import majority_answers
from mmcot_data.teacher.prompts import is_only_thinking

__all__ = ["RationaleSummary", "split_scores", "summarise"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RationaleSummary:
    """The rationales that a request asked for, those that were there before included."""

    path: Path
    num_questions: int
    num_samples: int
    """Of each question."""
    num_rationales: int
    num_new: int
    """Written by this run."""
    num_judged: int
    """Of questions whose answer is known."""
    num_correct: int
    num_unanswered: int
    """From which no answer could be read."""
    num_kept: int
    num_only_thinking: int
    """In which the teacher did not come to an end of its thoughts, of the answer's included."""
    finish_reasons: dict[str, int] = field(default_factory=dict)
    """How many ended for which reason, the most frequent first."""
    majority_accuracy: float | None
    """Of the answers of most samples; None for one sample, or if no answer is known."""
    demonstration_ids: tuple[str | None, ...] = ()
    """Of the prompt's demonstrations; None for those of a file."""

    @property
    def accuracy(self) -> float | None:
        """Share of the judged rationales that lead to the right answer; unanswered ones don't."""
        return self.num_correct / self.num_judged if self.num_judged else None

    @property
    def num_truncated(self) -> int:
        """Cut off at the token limit."""
        return self.finish_reasons.get("length", 0)


def summarise(
    path: Path,
    rows: Sequence[Row],
    questions: Sequence[Question],
    *,
    num_new: int,
    num_samples: int,
    demonstration_ids: tuple[str | None, ...],
) -> RationaleSummary:
    """Count the rows of ``questions``."""
    gold = {question.question_id: question.answer for question in questions}
    reasons = Counter(str(row["finish_reason"]) for row in rows)
    return RationaleSummary(
        path=path,
        num_questions=len(questions),
        num_samples=num_samples,
        num_rationales=len(rows),
        num_new=num_new,
        num_judged=sum(gold[row["question_id"]] is not None for row in rows),
        num_correct=sum(row["correct"] is True for row in rows),
        num_unanswered=sum(row["answer"] is None for row in rows),
        num_kept=sum(row["kept"] for row in rows),
        num_only_thinking=sum(_is_only_thinking(row) for row in rows),
        finish_reasons=dict(reasons.most_common()),
        majority_accuracy=_majority_accuracy(rows, gold),
        demonstration_ids=demonstration_ids,
    )


def split_scores(rows: Iterable[Row], questions: Iterable[Question]) -> dict[str, dict[str, Any]]:
    """Counts and accuracies of all rows, by split."""
    by_id = {question.question_id: question for question in questions}
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(by_id[row["question_id"]].split, []).append(row)
    scores = {}
    for split, members in sorted(splits.items()):
        gold = {row["question_id"]: by_id[row["question_id"]].answer for row in members}
        judged = [row for row in members if gold[row["question_id"]] is not None]
        scores[split] = {
            "questions": len(gold),
            "rationales": len(members),
            "unanswered": sum(row["answer"] is None for row in members),
            "truncated": sum(row["finish_reason"] == "length" for row in members),
            "kept": sum(row["kept"] for row in members),
            "accuracy": (
                sum(row["correct"] is True for row in judged) / len(judged) if judged else None
            ),
            "majority_accuracy": _majority_accuracy(members, gold),
        }
    return scores


def _is_only_thinking(row: Row) -> bool:
    parts = [row["completion"], row["answer_completion"] or ""]
    parts += [step["answer"] for step in row["steps"]]
    return any(map(is_only_thinking, parts))


def _majority_accuracy(rows: Sequence[Row], gold: Mapping[str, int | None]) -> float | None:
    judged = {row["question_id"] for row in rows if gold[row["question_id"]] is not None}
    if not judged or len(rows) == len({row["question_id"] for row in rows}):
        return None
    answers = majority_answers(rows)
    return sum(answers.get(each) == gold[each] for each in judged) / len(judged)
