"""Rationales, by producer, as the table rationales/<producer>.parquet.

A question may have several samples. Whether one is good enough to train on is a column, not a
deletion, so that other filters stay possible later.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.prompts import gold_rationale
from mmcot_data.questions import Question
from mmcot_data.text_artifacts import read_artifact, write_artifact

__all__ = [
    "Rationale",
    "gold_rationales",
    "kept_rationales",
    "read_rationales",
    "write_rationales",
]

_SCHEMA = pl.Schema(
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
_KEY = ("question_id", "sample")


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
    """``stop`` for a complete text, ``length`` for one that was cut off at the token limit."""
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
    table = pl.DataFrame([asdict(rationale) for rationale in rationales], schema=_SCHEMA)
    _check_known(path, table, questions)
    write_artifact(path, table, _KEY, made_by)


def read_rationales(path: Path, questions: Iterable[Question] | None = None) -> list[Rationale]:
    """Read a rationales table in its order.

    Args:
        path: The file.
        questions: All questions of the artifact root, to refuse rationales for unknown ones.

    Raises:
        DataError: If the file is absent or not a rationales table, ``(question_id, sample)``
            occurs twice, or a question is unknown.
    """
    table = read_artifact(path, _SCHEMA, _KEY, nullable=("answer", "correct"))
    _check_known(path, table, questions)
    return [Rationale(**row) for row in table.iter_rows(named=True)]


def kept_rationales(rationales: Iterable[Rationale]) -> dict[str, str]:
    """The text of each question's first kept sample, by question id; others are absent."""
    texts: dict[str, str] = {}
    for rationale in sorted(rationales, key=lambda rationale: rationale.sample):
        if rationale.kept:
            texts.setdefault(rationale.question_id, rationale.rationale)
    return texts


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
