"""What the model will see, question by question: the texts behind training and generation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.prompts import build_prompt, rationale_target
from mmcot_data.questions import Question
from mmcot_data.rationales import Rationale
from mmcot_data.row_files import write_rows
from mmcot_data.tokens import measure

__all__ = ["InputTokens", "ModelInput", "count_tokens", "model_inputs", "write_inputs"]

_SCHEMA = pl.Schema({"question_id": pl.String(), "source": pl.String(), "target": pl.String()})
_TOKEN_SCHEMA = pl.Schema(
    {
        "source_tokens": pl.Int32(),
        "source_cut": pl.String(),
        "target_tokens": pl.Int32(),
        "target_cut": pl.String(),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """The source and target text of one question."""

    question_id: str
    source: str
    target: str | None
    """None where the target needs an answer that the data set hides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InputTokens:
    """How long a source and its target are for a tokenizer, and what exceeds the limits."""

    source_tokens: int
    source_cut: str
    """The end of the source that the model does not see; empty if it sees all of it."""
    target_tokens: int | None
    """None where there is no target."""
    target_cut: str


def model_inputs(
    questions: Sequence[Question],
    prompt_format: str,
    captions: Mapping[str, str] | None = None,
    rationales: Mapping[str, str] | None = None,
    *,
    targets: Mapping[str, Sequence[Rationale]] | None = None,
    quirks: bool = True,
) -> list[ModelInput]:
    """Put questions into words for the model.

    Args:
        questions: The questions; their order is kept.
        prompt_format: One of ``mmcot_data.prompts.PROMPT_FORMATS``.
        captions: Caption by question id. A question without one has none in its context.
        rationales: QCMG-A only: rationale by question id, one for every question. None shows the
            gold rationales, lecture and solution.
        targets: Rationales that the model should write instead of the gold one, by question id:
            one row for each of them. Questions that have none are left out.
        quirks: As for ``mmcot_data.prompts.build_prompt``.

    Raises:
        DataError: If the format is unknown or shows no rationale though some are given, if a
            question has no rationale though some are given, or if the format has no rationale in
            its target and some are given for it.
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
        texts = [prompt.target]
        if targets is not None:
            texts = [
                rationale_target(question, prompt_format, row.rationale, row.answer)
                for row in targets.get(question.question_id, ())
            ]
        inputs += [
            ModelInput(question_id=question.question_id, source=prompt.source, target=text)
            for text in texts
        ]
    return inputs


def count_tokens(
    tokenizer: Any, inputs: Sequence[ModelInput], *, max_source: int, max_target: int
) -> list[InputTokens]:
    """How many tokens the texts have, and what of them is cut off.

    Args:
        tokenizer: The model's.
        inputs: The texts.
        max_source: Most tokens of a source.
        max_target: Most tokens of a target.
    """
    sources = measure(tokenizer, [text.source for text in inputs], max_source)
    targets = measure(tokenizer, [text.target or "" for text in inputs], max_target)
    return [
        InputTokens(
            source_tokens=source.num_tokens,
            source_cut=source.cut,
            target_tokens=None if text.target is None else target.num_tokens,
            target_cut=target.cut,
        )
        for text, source, target in zip(inputs, sources, targets, strict=True)
    ]


def write_inputs(
    path: Path, inputs: Sequence[ModelInput], tokens: Iterable[InputTokens] | None = None
) -> None:
    """Write model inputs, atomically, with the columns question_id, source and target.

    Args:
        path: A ``.parquet`` file, or ``.jsonl`` with one JSON object a line.
        inputs: The rows; their order is kept.
        tokens: Further columns: source_tokens, source_cut, target_tokens, target_cut.

    Raises:
        DataError: If the name ends in something else.
    """
    rows = [asdict(row) for row in inputs]
    schema = _SCHEMA
    if tokens is not None:
        rows = [row | asdict(more) for row, more in zip(rows, tokens, strict=True)]
        schema = pl.Schema([*_SCHEMA.items(), *_TOKEN_SCHEMA.items()])
    write_rows(path, rows, schema)
