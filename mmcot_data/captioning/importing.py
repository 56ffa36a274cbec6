"""Captions that someone else made: ScienceQA's captions.json, Multimodal-CoT's files."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.captions import (
    CAPTION_KEY,
    CAPTION_SCHEMA,
    Caption,
    read_caption_file,
    write_captions,
)
from mmcot_data.errors import DataError
from mmcot_data.files import file_sha256
from mmcot_data.questions import Question, read_questions
from mmcot_data.text_artifacts import artifact_path, read_artifact, read_made_by

__all__ = ["ImportSummary", "import_captions"]

_FIRST_CHOICE = "choice_0"
_NUM_LISTED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSummary:
    """What an import has written."""

    path: Path
    num_captions: int
    num_of_choices: int
    """Captions of the first choice's picture, of questions that have no other."""
    num_without_picture: int
    """Captions of questions that have no picture at all in questions.parquet."""
    num_skipped: int
    """Captions of unknown questions."""


def import_captions(
    file: Path,
    artifacts: Path,
    producer: str,
    *,
    role: str = "question",
    skip_unknown: bool = False,
) -> ImportSummary:
    """Write the captions of a file of ScienceQA or of Multimodal-CoT as a table.

    Args:
        file: See ``read_caption_file``.
        artifacts: The artifact root, with questions.parquet.
        producer: Name of the captions.
        role: Image role of the pictures that they are of. Multimodal-CoT captions ``choice_0.png``
            where there is no ``image.png``: so with ``question``, those of a question that has
            only choice images get the role ``choice_0``.
        skip_unknown: Leave out captions of questions that are not in questions.parquet.

    Raises:
        DataError: If the file or questions.parquet can't be read, a question is unknown, none is
            known, or the producer has other captions already.
    """
    path = artifact_path(artifacts, "captions", producer)
    questions = {question.question_id: question for question in read_questions(artifacts)}
    captions, about = read_caption_file(file)
    unknown = [question_id for question_id in captions if question_id not in questions]
    if len(unknown) == len(captions) or (unknown and not skip_unknown):
        raise DataError(_unknown(file, artifacts, unknown, len(captions)))
    rows = [
        Caption(question_id=key, role=_role(questions[key], role), caption=text)
        for key, text in captions.items()
        if key in questions
    ]
    made_by = {"imported_from": file.name, "sha256": file_sha256(file), "about": about}
    if path.is_file():
        _check_same(path, rows, made_by)
    else:
        write_captions(path, rows, made_by)
    return ImportSummary(
        path=path,
        num_captions=len(rows),
        num_of_choices=sum(row.role != role for row in rows),
        num_without_picture=sum(not questions[row.question_id].image_roles for row in rows),
        num_skipped=len(unknown),
    )


def _role(question: Question, role: str) -> str:
    roles = question.image_roles
    is_first_choice = role == "question" and role not in roles and _FIRST_CHOICE in roles
    return _FIRST_CHOICE if is_first_choice else role


def _unknown(file: Path, artifacts: Path, unknown: Sequence[str], num_captions: int) -> str:
    if not num_captions:
        return f"{file} holds no captions"
    first = ", ".join(map(repr, unknown[:_NUM_LISTED]))
    more = ", …" if len(unknown) > _NUM_LISTED else ""
    advice = "; --skip-unknown leaves them out" if len(unknown) < num_captions else ""
    return (
        f"{file}: {len(unknown)} of {num_captions} captions are of questions that are not in "
        f"{artifacts / 'questions.parquet'}: {first}{more}; expected captions of the same data set"
        f"{advice}"
    )


def _check_same(path: Path, rows: Sequence[Caption], made_by: dict[str, Any]) -> None:
    """Importing the same again does nothing; other captions are never overwritten."""
    table = pl.DataFrame([asdict(row) for row in rows], schema=CAPTION_SCHEMA)
    if read_made_by(path) != made_by or not read_artifact(path, CAPTION_SCHEMA, CAPTION_KEY).equals(
        table
    ):
        raise DataError(
            f"{path} holds other captions: choose another --producer, or delete it to replace them"
        )
