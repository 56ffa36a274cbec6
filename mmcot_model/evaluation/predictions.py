"""Predictions: what a model answered, by question id, as parquet or JSON lines."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.files import write_parquet
from mmcot_data.questions import Question

__all__ = ["Prediction", "read_predictions", "write_predictions"]

_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "split": pl.String(),
        "answer": pl.Int32(),
        "rationale": pl.String(),
        "reference_rationale": pl.String(),
        "text": pl.String(),
    }
)
_REQUIRED = ("question_id", "answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a model answered to one question; the fields are the columns of predictions.parquet."""

    question_id: str
    split: str | None = None
    answer: int | None
    """Index into the question's choices; None if the model named none."""
    rationale: str | None = None
    reference_rationale: str | None = None
    """What the rationale is scored against; None for the data set's own."""
    text: str | None = None
    """What the model wrote in the answer stage."""


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions as parquet, atomically; their order is kept.

    Raises:
        DataError: If a question has two predictions.
    """
    predictions = list(predictions)
    _check_unique(path, predictions)
    rows = [asdict(prediction) for prediction in predictions]
    write_parquet(path, pl.DataFrame(rows, schema=_SCHEMA))


def read_predictions(path: Path, questions: Iterable[Question]) -> list[Prediction]:
    """Read predictions and check them against the questions.

    Args:
        path: A ``.parquet`` file, or ``.jsonl`` with one JSON object a line. question_id and
            answer (choice index or null) must be there; rationale, reference_rationale, split and
            text may be; other columns are left out.
        questions: All questions of the artifact root.

    Raises:
        DataError: If the file is absent, empty or not what its name says, a question is unknown
            or has two predictions, or an answer is none of its question's choices.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected predictions in .parquet or .jsonl")
    if path.suffix not in _READERS:
        raise DataError(f"{path}: expected a name that ends in {' or '.join(_READERS)}")
    known = {question.question_id: question for question in questions}
    records = _READERS[path.suffix](path)
    predictions = [_prediction(where, record, known) for where, record in records]
    if not predictions:
        raise DataError(f"{path} holds no predictions")
    _check_unique(path, predictions)
    return predictions


def _parquet_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        table = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: expected a parquet file: {error}") from error
    for number, row in enumerate(table.iter_rows(named=True)):
        yield f"{path}: row {number}", row


def _jsonl_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DataError(f"{where}: not valid JSON: {error}") from error
            if not isinstance(record, dict):
                raise DataError(f"{where}: expected a JSON object, found {record!r:.40}")
            yield where, record


_READERS = {".parquet": _parquet_records, ".jsonl": _jsonl_records}


def _prediction(where: str, record: Mapping[str, Any], known: Mapping[str, Question]) -> Prediction:
    if missing := [name for name in _REQUIRED if name not in record]:
        raise DataError(f"{where}: lacks {', '.join(missing)}; found {', '.join(record)}")
    question_id, answer = record["question_id"], record["answer"]
    if question_id not in known:
        raise DataError(
            f"{where}: question {question_id!r} is unknown; expected the id of one of the "
            f"{len(known)} questions, as a string"
        )
    num_choices = len(known[question_id].choices)
    if answer is not None and (type(answer) is not int or not 0 <= answer < num_choices):
        raise DataError(
            f"{where}: the answer to question {question_id!r} is {answer!r}; expected the index "
            f"of one of its {num_choices} choices, 0 to {num_choices - 1}, or null"
        )
    texts = {name: record.get(name) for name in _SCHEMA if name not in _REQUIRED}
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise DataError(f"{where}: {name} is {text!r}; expected a text or null")
    return Prediction(question_id=question_id, answer=answer, **texts)


def _check_unique(path: Path, predictions: Sequence[Prediction]) -> None:
    seen: set[str] = set()
    for prediction in predictions:
        if prediction.question_id in seen:
            raise DataError(
                f"{path}: question {prediction.question_id!r} has more than one prediction"
            )
        seen.add(prediction.question_id)
