"""What the model will see, question by question: the texts behind training and generation."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.files import replace_file, write_parquet
from mmcot_data.prompts import build_prompt
from mmcot_data.questions import Question

__all__ = ["ModelInput", "model_inputs", "write_inputs"]

_SCHEMA = pl.Schema({"question_id": pl.String(), "source": pl.String(), "target": pl.String()})


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """The source and target text of one question."""

    question_id: str
    source: str
    target: str | None
    """None where the target needs an answer that the data set hides."""


def model_inputs(
    questions: Sequence[Question],
    prompt_format: str,
    captions: Mapping[str, str] | None = None,
    rationales: Mapping[str, str] | None = None,
    *,
    quirks: bool = True,
) -> list[ModelInput]:
    """Put questions into words for the model.

    Args:
        questions: The questions; their order is kept.
        prompt_format: One of ``mmcot_data.prompts.PROMPT_FORMATS``.
        captions: Caption by question id. A question without one has none in its context.
        rationales: QCMG-A only: rationale by question id, one for every question. None shows the
            gold rationales, lecture and solution.
        quirks: As for ``mmcot_data.prompts.build_prompt``.

    Raises:
        DataError: If the format is unknown or shows no rationale though some are given, or if a
            question has no rationale though some are given.
    """
    captions = captions or {}
    if rationales is not None:
        missing = [q.question_id for q in questions if q.question_id not in rationales]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(questions)} questions have no rationale, the first is "
                f"{missing[0]!r}; expected one kept rationale for each: generate the missing "
                "ones, or choose a producer or split that covers the questions"
            )
    inputs = []
    for question in questions:
        prompt = build_prompt(
            question,
            prompt_format,
            caption=captions.get(question.question_id),
            rationale=None if rationales is None else rationales[question.question_id],
            quirks=quirks,
        )
        inputs.append(
            ModelInput(question_id=question.question_id, source=prompt.source, target=prompt.target)
        )
    return inputs


def write_inputs(path: Path, inputs: Iterable[ModelInput]) -> None:
    """Write model inputs, atomically, with the columns question_id, source and target.

    Args:
        path: A ``.parquet`` file, or ``.jsonl`` with one JSON object a line.
        inputs: The rows; their order is kept.

    Raises:
        DataError: If the name ends in something else.
    """
    rows = [asdict(row) for row in inputs]
    if path.suffix == ".parquet":
        write_parquet(path, pl.DataFrame(rows, schema=_SCHEMA))
    elif path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        replace_file(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))
    else:
        raise DataError(f"{path}: expected a name that ends in .parquet or .jsonl")
