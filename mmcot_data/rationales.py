"""Rationales, by producer, as the table rationales/<producer>.parquet.

A question may have several samples. Whether one is good enough to train on is a column, not a
deletion, so that other filters stay possible later.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.growing_artifact import Row
from mmcot_data.prompts import PROMPT_FORMATS, RATIONALE_FORMATS, gold_rationale
from mmcot_data.questions import Question
from mmcot_data.text_artifacts import (
    locked_artifact,
    read_artifact,
    read_made_by,
    write_artifact,
    write_artifact_once,
)

__all__ = [
    "KEEP_RULES",
    "RATIONALE_KEY",
    "RATIONALE_SCHEMA",
    "KeepRule",
    "Rationale",
    "first_rationales",
    "gold_rationales",
    "is_correct",
    "is_usable",
    "kept_marks",
    "kept_rationales",
    "kept_samples",
    "majority_answers",
    "mark_kept",
    "read_rationales",
    "write_rationales",
    "write_rationales_once",
]

KeepRule = Literal["all", "correct", "majority"]
"""Which rationales are to be used: all, those of the right answer, or those of the answer that most
samples of the question give."""
KEEP_RULES: tuple[KeepRule, ...] = get_args(KeepRule)

RATIONALE_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "sample": pl.Int32(),
        "rationale": pl.String(),
        "answer": pl.Int32(),
        "correct": pl.Boolean(),
        "kept": pl.Boolean(),
        "finish_reason": pl.String(),
        "prompt_format": pl.String(),
    }
)
RATIONALE_KEY = ("question_id", "sample")
_WRITTEN = ("stop", "length", "unknown")
_NULLABLE = ("answer", "correct")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rationale:
    """One rationale for one question; the fields are the columns of the table."""

    question_id: str
    sample: int = 0
    """Number among the question's rationales by this producer."""
    rationale: str
    """The text as stage 2 reads it, with its own ``Solution:`` at the front."""
    answer: int | None = None
    """The choice that its producer drew from it; None if it names none."""
    correct: bool | None = None
    """Whether that choice is the right one; None if either is unknown."""
    kept: bool = True
    """Whether it is to be used."""
    finish_reason: str = "stop"
    """``stop`` for a complete text, ``length`` for one that was cut off at the token limit,
    ``unknown`` for an imported one; else why a server wrote none."""
    prompt_format: str
    """The prompt format that it answers."""


def write_rationales(
    path: Path,
    rationales: Iterable[Rationale],
    made_by: dict[str, Any],
    questions: Iterable[Question] | None = None,
) -> None:
    """Write a rationales table, atomically.

    Args:
        path: ``<artifact root>/rationales/<producer>.parquet``.
        rationales: The rows, in any order; it is kept.
        made_by: What made them: model or run, settings, seed.
        questions: All questions of the artifact root, to refuse rationales for unknown ones.

    Raises:
        DataError: If ``(question_id, sample)`` occurs twice, or a question is unknown.
    """
    table = pl.DataFrame([asdict(rationale) for rationale in rationales], schema=RATIONALE_SCHEMA)
    _check_known(path, table, questions)
    write_artifact(path, table, RATIONALE_KEY, made_by)


def write_rationales_once(
    path: Path, rationales: Iterable[Rationale], made_by: dict[str, Any]
) -> bool:
    """Write a rationales table if it is not there, and see that it is the same if it is.

    Returns:
        Whether it was written.

    Raises:
        DataError: If another table stands there, or ``(question_id, sample)`` occurs twice.
    """
    table = pl.DataFrame([asdict(rationale) for rationale in rationales], schema=RATIONALE_SCHEMA)
    return write_artifact_once(path, table, RATIONALE_KEY, made_by, marks=("kept",))


def read_rationales(path: Path, questions: Iterable[Question] | None = None) -> list[Rationale]:
    """Read a rationales table in its order.

    Args:
        path: The file.
        questions: All questions of the artifact root, to refuse rationales for unknown ones.

    Raises:
        DataError: If the file is absent or not a rationales table, ``(question_id, sample)``
            occurs twice, or a question is unknown.
    """
    table = read_artifact(path, RATIONALE_SCHEMA, RATIONALE_KEY, _NULLABLE)
    _check_known(path, table, questions)
    return [Rationale(**row) for row in table.iter_rows(named=True)]


def first_rationales(rationales: Iterable[Rationale]) -> dict[str, str]:
    """The text of each question's first sample, kept or not, by question id.

    Questions are tested with these: a mark may know the right answer.
    """
    texts: dict[str, str] = {}
    for rationale in sorted(rationales, key=lambda rationale: rationale.sample):
        texts.setdefault(rationale.question_id, rationale.rationale)
    return texts


def kept_rationales(rationales: Iterable[Rationale]) -> dict[str, str]:
    """The text of each question's first kept sample, by question id; others are absent."""
    texts: dict[str, str] = {}
    for rationale in sorted(rationales, key=lambda rationale: rationale.sample):
        if rationale.kept:
            texts.setdefault(rationale.question_id, rationale.rationale)
    return texts


def kept_samples(rationales: Iterable[Rationale]) -> dict[str, list[Rationale]]:
    """All kept samples of each question in their order, by question id; others are absent."""
    samples: dict[str, list[Rationale]] = {}
    for rationale in sorted(rationales, key=lambda rationale: rationale.sample):
        if rationale.kept:
            samples.setdefault(rationale.question_id, []).append(rationale)
    return samples


def majority_answers(rows: Iterable[Row]) -> dict[str, int]:
    """What most samples of a question answer (self-consistency, Wang et al., arXiv 2203.11171).

    Args:
        rows: With ``question_id``, ``sample`` and ``answer``. Null answers do not vote.

    Returns:
        The answer by question id, of the questions with a vote; among equally many votes, the one
        whose first sample is earliest.
    """
    votes: dict[str, Counter[int]] = {}
    for row in sorted(rows, key=lambda row: row["sample"]):
        if row["answer"] is not None:
            votes.setdefault(row["question_id"], Counter())[row["answer"]] += 1
    return {question_id: counts.most_common(1)[0][0] for question_id, counts in votes.items()}


def kept_marks(rows: Iterable[Row], rule: KeepRule) -> list[bool]:
    """Which rationales a rule keeps. None is deleted, so that another rule stays possible.

    Args:
        rows: All rows of a producer, with the columns of ``RATIONALE_SCHEMA``.
        rule: See ``KeepRule``. An unknown or unparsable answer is neither right nor a majority, and
            no rule keeps what is not usable.

    Returns:
        The new values of ``kept``, in the order of the rows.
    """
    rows = list(rows)
    majority = majority_answers(rows) if rule == "majority" else {}
    return [
        is_usable(row)
        and (rule != "correct" or row["correct"] is True)
        and (
            rule != "majority"
            or (row["answer"] is not None and row["answer"] == majority.get(row["question_id"]))
        )
        for row in rows
    ]


def is_correct(answer: int | None, gold: int | None) -> bool | None:
    """Whether an answer is right; None if either is unknown."""
    return None if answer is None or gold is None else answer == gold


def is_usable(row: Row) -> bool:
    """Whether a text was written: not refused by a server, and not empty.

    What the data set or a stage 1 wrote may be empty: that is what the model reads in their case.
    """
    if row["finish_reason"] not in _WRITTEN:
        return False
    text = row["rationale"].removeprefix("Solution:").strip()
    return bool(text) or row["prompt_format"] in PROMPT_FORMATS


def mark_kept(path: Path, rule: KeepRule) -> tuple[int, int, int]:
    """Set the column ``kept`` of a rationales table by a rule, in one step.

    Args:
        path: The table; its other columns and what it says of its making stay.
        rule: See ``KeepRule``.

    Returns:
        How many rationales are kept, how many there are, and how many marks changed.

    Raises:
        DataError: If the file is absent or not a rationales table, another process is making it, or
            the rule is about answers and there are none.
    """
    read_made_by(path)  # no lock is left where there is no table
    with locked_artifact(path):
        made_by = read_made_by(path)
        checked = read_artifact(path, RATIONALE_SCHEMA, RATIONALE_KEY, _NULLABLE)
        draws_none = checked["prompt_format"].is_in(RATIONALE_FORMATS) & checked["answer"].is_null()
        if rule != "all" and draws_none.all():
            raise DataError(
                f"no rationale of {path} draws an answer, so that none is right or of a majority: "
                "stage 1 writes none; a teacher does"
            )
        marks = pl.Series("kept", kept_marks(checked.iter_rows(named=True), rule), dtype=pl.Boolean)
        num_changed = int((marks != checked["kept"]).sum())
        if num_changed or made_by.get("kept", "all") != rule:
            table = pl.read_parquet(path).with_columns(marks)
            write_artifact(path, table, RATIONALE_KEY, made_by | {"kept": rule})
    return int(marks.sum()), checked.height, num_changed


def gold_rationales(
    questions: Iterable[Question], prompt_format: str, *, quirks: bool = True
) -> list[Rationale]:
    """The data set's own rationales: the producer ``gold``.

    Args:
        questions: The questions.
        prompt_format: The stage-1 format, ``QCM-E`` or ``QCM-LE``.
        quirks: As for ``mmcot_data.prompts.gold_rationale``.

    Raises:
        DataError: If the format is not one of stage 1.
    """
    return [
        Rationale(
            question_id=question.question_id,
            rationale=gold_rationale(question, prompt_format, quirks=quirks),
            answer=question.answer,
            correct=None if question.answer is None else True,
            prompt_format=prompt_format,
        )
        for question in questions
    ]


def _check_known(path: Path, table: pl.DataFrame, questions: Iterable[Question] | None) -> None:
    if questions is None:
        return
    known = {question.question_id for question in questions}
    unknown = [question_id for question_id in table["question_id"] if question_id not in known]
    if unknown:
        raise DataError(
            f"{path}: {len(unknown)} rationales are for unknown questions, the first for "
            f"{unknown[0]!r}; expected question ids of this artifact root's questions.parquet"
        )
