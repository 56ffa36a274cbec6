"""Finished runs side by side: accuracy by bucket and by skill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmcot_data.questions import OPTION_LETTERS, Question, read_questions, select_split
from mmcot_model.evaluation import (
    Prediction,
    Scores,
    evaluate,
    read_predictions,
    settled_answers,
)
from mmcot_model.evaluation.buckets import BUCKETS
from mmcot_model.runs.folder import read_config
from mmcot_model.runs.folder import read_run as read_run_record

__all__ = [
    "ReportedRun",
    "accuracy_table",
    "answered",
    "is_right",
    "letter",
    "options",
    "rationale",
    "read_run",
    "skill_table",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportedRun:
    """A finished run, as the report shows it."""

    title: str
    folder: Path
    questions: Sequence[Question]
    predictions: Mapping[str, Prediction]
    answers: Mapping[str, int | None]
    """What is scored, by question id: the run may draw a letter where none can be read."""
    scores: Scores


def read_run(title: str, folder: Path) -> ReportedRun:
    """Read a finished run of mmcot-train.

    Raises:
        TrainingError: If the run is not finished, or its settings are damaged.
        DataError: If its questions or predictions cannot be read.
    """
    run, config = read_run_record(folder), read_config(folder)
    questions = read_questions(folder / run["artifacts"])
    tested = select_split(questions, run["test_split"])
    predictions = read_predictions(folder / "predictions.parquet", questions)
    by_id = {prediction.question_id: prediction for prediction in predictions}
    return ReportedRun(
        title=title,
        folder=folder,
        questions=tested,
        predictions=by_id,
        answers=settled_answers(tested, by_id, config.failures, config.seed),
        scores=evaluate(tested, predictions, failures=config.failures, seed=config.seed),
    )


def accuracy_table(runs: Sequence[ReportedRun]) -> list[list[str]]:
    """Rows of accuracies: a header, the number of questions, and a row a run."""
    buckets = runs[0].scores.buckets
    rows = [
        ["run", *(BUCKETS[key].label for key in buckets)],
        ["questions", *(str(bucket.n) for bucket in buckets.values())],
    ]
    for run in runs:
        accuracies = (bucket.accuracy for bucket in run.scores.buckets.values())
        rows.append([run.title, *("-" if a is None else f"{a:.1f}" for a in accuracies)])
    return rows


def skill_table(runs: Sequence[ReportedRun]) -> list[list[str]]:
    """Rows of accuracies by skill, and for all image and all text questions; chance beside them."""
    groups: dict[str, list[Question]] = {}
    for question in runs[0].questions:
        groups.setdefault(question.skill, []).append(question)
    order = sorted(groups, key=lambda skill: (not groups[skill][0].has_image, skill))
    image = [q for q in runs[0].questions if q.has_image]
    rest = [q for q in runs[0].questions if not q.has_image]
    titled = [(skill, groups[skill]) for skill in order]
    titled += [("all image questions", image), ("all other questions", rest)]
    rows = [["skill", "picture", "n", "chance", *(run.title for run in runs)]]
    for title, questions in titled:
        if questions:
            chance = sum(100 / len(q.choices) for q in questions) / len(questions)
            accuracies = [f"{_accuracy(run, questions):.1f}" for run in runs]
            picture = "yes" if questions[0].has_image else "no"
            rows.append([title, picture, str(len(questions)), f"{chance:.1f}", *accuracies])
    return rows


def is_right(run: ReportedRun, question: Question) -> bool:
    """Whether the run's answer to a question counts as right."""
    answer = run.answers[question.question_id]
    return answer is not None and answer == question.answer


def answered(run: ReportedRun, question: Question) -> str:
    """The letter that the run answered, or that stands for it where it answered nothing."""
    prediction = run.predictions.get(question.question_id)
    shown = letter(None if prediction is None else prediction.answer)
    counted = letter(run.answers[question.question_id])
    return shown if shown == counted else f"{shown}, which counts as {counted}"


def rationale(run: ReportedRun, question: Question) -> str:
    """What the run wrote before it answered; its answer's text if it has no rationales."""
    prediction = run.predictions.get(question.question_id)
    return (prediction and (prediction.rationale or prediction.text)) or ""


def letter(index: int | None) -> str:
    """``(A)`` for 0, ``nothing`` for None."""
    return "nothing" if index is None else f"({OPTION_LETTERS[index]})"


def options(question: Question) -> str:
    """All choices with their letters."""
    return "  ".join(f"{letter(i)} {choice}" for i, choice in enumerate(question.choices))


def _accuracy(run: ReportedRun, questions: Sequence[Question]) -> float:
    return 100 * sum(is_right(run, q) for q in questions) / len(questions)
