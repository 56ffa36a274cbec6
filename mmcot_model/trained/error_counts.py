"""What is counted in an error analysis, over all questions and by skill."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcot_data.questions import Question
from mmcot_model.evaluation.intervals import Share
from mmcot_model.evaluation.tables import markdown_table, shown_interval

__all__ = [
    "AS_RUN",
    "CONDITIONS",
    "ConditionAnswer",
    "ConditionCounts",
    "ErrorCounts",
    "count_by_skill",
    "count_errors",
    "render_error_tables",
]

AS_RUN = "as_run"
CONDITIONS: Mapping[str, str] = {
    AS_RUN: "as the run is tested",
    "gold_rationale": "gold rationale",
    "no_picture": "no picture",
    "no_picture_in_answer": "same rationale, no picture",
}
"""What is different, by the names of the conditions in files. Without a picture the rationale is
written anew, without it, unless it is said to be the same. Which conditions a run has depends on
its stages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionAnswer:
    """What a run answers to a question under a condition; a row of error_analysis.parquet."""

    question_id: str
    condition: str
    """One of ``CONDITIONS``."""
    rationale: str | None
    """What the answer stage read; None if it reads none."""
    text: str
    answer: int | None
    """Choice index; None if the text names none, which is wrong."""
    correct: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ConditionCounts:
    """The answers under one condition, compared with those of the run as it is tested."""

    correct: Share
    """Of all questions."""
    changed: Share
    """Answers that are others, of all."""
    corrected: Share
    """Right under the condition, of those that the run has wrong."""
    spoiled: Share
    """Wrong under the condition, of those that the run has right."""

    def to_json(self) -> dict[str, Any]:
        """The shares by name."""
        return {
            "correct": self.correct.to_json(),
            "changed": self.changed.to_json(),
            "corrected": self.corrected.to_json(),
            "spoiled": self.spoiled.to_json(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorCounts:
    """An error analysis of some questions."""

    n: int
    num_pictures: int
    """Questions whose picture the run reads."""
    conditions: Mapping[str, ConditionCounts]
    """Those that the run has, in the order of ``CONDITIONS``."""
    differs_in_wrong: Share | None
    """Wrong answers of the run whose rationale is not the gold one; None without rationales."""
    differs_in_right: Share | None
    """The same of its right answers."""
    wrong_without_picture: Share | None
    """Pictured questions that are wrong without the picture: those that the run has right. None if
    it was not asked without."""

    def to_json(self) -> dict[str, Any]:
        """The counts with percentages and intervals."""
        differs = {"wrong": self.differs_in_wrong, "right": self.differs_in_right}
        return {
            "n": self.n,
            "num_pictures": self.num_pictures,
            "conditions": {name: each.to_json() for name, each in self.conditions.items()},
            "rationale_differs_from_gold": {
                name: None if share is None else share.to_json() for name, share in differs.items()
            },
            "wrong_without_picture": self.wrong_without_picture
            and {"right_with_it": self.wrong_without_picture.to_json()},
        }


def count_errors(
    questions: Sequence[Question],
    answers: Iterable[ConditionAnswer],
    *,
    pictures: Iterable[str],
    differing: Iterable[str] | None,
) -> ErrorCounts:
    """Count over some questions.

    Args:
        questions: Those to count.
        answers: One for each question and condition; others are left out.
        pictures: Ids of questions whose picture the run reads.
        differing: Ids of questions whose rationale is not the gold one; None without rationales.
    """
    ids = {question.question_id for question in questions}
    by_condition: dict[str, dict[str, ConditionAnswer]] = {}
    for answer in answers:
        if answer.question_id in ids:
            by_condition.setdefault(answer.condition, {})[answer.question_id] = answer
    run = by_condition[AS_RUN]
    right = {key for key in ids if run[key].correct}
    wrong = ids - right
    conditions = {}
    for name in CONDITIONS:
        if name not in by_condition:
            continue
        given = by_condition[name]
        correct = {key for key in ids if given[key].correct}
        changed = {key for key in ids if given[key].answer != run[key].answer}
        conditions[name] = ConditionCounts(
            correct=Share(len(correct), len(ids)),
            changed=Share(len(changed), len(ids)),
            corrected=Share(len(correct & wrong), len(wrong)),
            spoiled=Share(len(right - correct), len(right)),
        )
    others = None if differing is None else ids.intersection(differing)
    pictured = ids.intersection(pictures)
    wrong_without = None
    if "no_picture" in by_condition:
        blind = {key for key in pictured if not by_condition["no_picture"][key].correct}
        wrong_without = Share(len(blind & right), len(blind))
    return ErrorCounts(
        n=len(ids),
        num_pictures=len(pictured),
        conditions=conditions,
        differs_in_wrong=None if others is None else Share(len(others & wrong), len(wrong)),
        differs_in_right=None if others is None else Share(len(others & right), len(right)),
        wrong_without_picture=wrong_without,
    )


def count_by_skill(
    questions: Sequence[Question],
    answers: Iterable[ConditionAnswer],
    *,
    pictures: Iterable[str],
    differing: Iterable[str] | None,
) -> dict[str, ErrorCounts]:
    """Count over the questions of each skill, by its name; arguments as for ``count_errors``."""
    skills: dict[str, list[Question]] = {}
    for question in questions:
        skills.setdefault(question.skill, []).append(question)
    by_skill: dict[str, list[ConditionAnswer]] = {skill: [] for skill in skills}
    skill_of = {question.question_id: question.skill for question in questions}
    for answer in answers:
        by_skill[skill_of[answer.question_id]].append(answer)
    pictures, differing = set(pictures), None if differing is None else set(differing)
    return {
        skill: count_errors(skills[skill], by_skill[skill], pictures=pictures, differing=differing)
        for skill in sorted(skills)
    }


def render_error_tables(overall: ErrorCounts, skills: Mapping[str, ErrorCounts]) -> str:
    """The counts as lines of text: all questions, then by skill."""
    heads = ("condition", "n", "accuracy", "95% interval", "changed", "corrected", "spoiled")
    rows = [
        (
            CONDITIONS[name],
            str(overall.n),
            _percent(each.correct),
            shown_interval(each.correct.interval),
            str(each.changed.count),
            f"{each.corrected.count} of {each.corrected.of}",
            f"{each.spoiled.count} of {each.spoiled.of}",
        )
        for name, each in overall.conditions.items()
    ]
    lines = [markdown_table(heads, rows), "", *_sentences(overall), ""]
    heads_by_skill = ["skill", "n"]
    for name in overall.conditions:
        heads_by_skill += [CONDITIONS[name]] if name == AS_RUN else [CONDITIONS[name], "changed"]
    heads_by_skill += ["corrected by gold"] if "gold_rationale" in overall.conditions else []
    heads_by_skill += ["wrong, other than gold"] if overall.differs_in_wrong is not None else []
    rows_by_skill = [_skill_row(skill, counts) for skill, counts in skills.items()]
    lines.append(markdown_table(heads_by_skill, rows_by_skill))
    return "\n".join(lines)


def _skill_row(skill: str, counts: ErrorCounts) -> list[str]:
    row = [skill or "(none)", str(counts.n)]
    for name, each in counts.conditions.items():
        row.append(f"{_percent(each.correct)} ({shown_interval(each.correct.interval)})")
        if name != AS_RUN:
            row.append(str(each.changed.count))
    if "gold_rationale" in counts.conditions:
        corrected = counts.conditions["gold_rationale"].corrected
        row.append(f"{corrected.count} of {corrected.of}")
    if counts.differs_in_wrong is not None:
        row.append(f"{counts.differs_in_wrong.count} of {counts.differs_in_wrong.of}")
    return row


def _sentences(counts: ErrorCounts) -> list[str]:
    """What the paper asks of its errors, in numbers of this run."""
    lines = []
    if "gold_rationale" in counts.conditions:
        corrected = counts.conditions["gold_rationale"].corrected
        lines.append(f"Wrong answers that the gold rationale corrects: {_shown(corrected)}.")
    if counts.differs_in_wrong is not None and counts.differs_in_right is not None:
        lines.append(
            "Rationales that differ from the gold one: of wrong answers "
            f"{_shown(counts.differs_in_wrong)}, of right answers "
            f"{_shown(counts.differs_in_right)}."
        )
    if counts.wrong_without_picture is not None:
        lines.append(
            f"Of the {counts.num_pictures} of {counts.n} questions that have a picture, wrong "
            f"answers without it that are right with it: {_shown(counts.wrong_without_picture)}."
        )
    return lines


def _shown(share: Share) -> str:
    if not share.of:
        return "there are none"
    return f"{share.count} of {share.of}, {_percent(share)}% ({shown_interval(share.interval)})"


def _percent(share: Share) -> str:
    return "-" if share.percent is None else f"{share.percent:.1f}"
