"""What the model will see, question by question: the texts behind training and generation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.cut_report import CutReport
from mmcot_data.errors import DataError
from mmcot_data.prompts import SourceParts, build_prompt, rationale_target
from mmcot_data.questions import Question
from mmcot_data.rationales import Rationale
from mmcot_data.row_files import write_rows
from mmcot_data.tokens import EncodedText, encode_sources, encode_texts
from mmcot_data.truncation import Truncation

__all__ = ["EncodedInputs", "ModelInput", "encode_inputs", "model_inputs", "write_inputs"]

_SCHEMA = pl.Schema({"question_id": pl.String(), "source": pl.String(), "target": pl.String()})
_TOKEN_SCHEMA = pl.Schema(
    {
        "source_tokens": pl.Int32(),
        "source_seen": pl.String(),
        "source_cut": pl.String(),
        "target_tokens": pl.Int32(),
        "target_cut": pl.String(),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelInput:
    """The source and target text of one question."""

    question_id: str
    parts: SourceParts
    target: str | None
    """None where the target needs an answer that the data set hides."""

    @property
    def source(self) -> str:
        """The whole source, however long."""
        return self.parts.text


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedInputs:
    """Inputs in tokens, as training and generation read them."""

    sources: Sequence[EncodedText]
    """One for each input, in their order."""
    targets: Sequence[EncodedText]
    """One for each input; empty where it has no target."""
    cuts: CutReport
    """What is cut of them."""


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
            ModelInput(question_id=question.question_id, parts=prompt.parts, target=text)
            for text in texts
        ]
    return inputs


def encode_inputs(
    tokenizer: Any,
    inputs: Sequence[ModelInput],
    *,
    max_source: int,
    max_target: int | None,
    truncation: Truncation = "keep",
) -> EncodedInputs:
    """Tokenize sources and targets, and cut what exceeds the limits.

    Args:
        tokenizer: T5's; it ends each text with ``</s>``.
        inputs: The texts.
        max_source: Most tokens of a source.
        max_target: Most tokens of a target, which is cut off on the right. None leaves the targets
            empty, for generation.
        truncation: Of sources: ``keep`` takes away what matters least (``mmcot_data.truncation``);
            ``right`` cuts off the end, as Multimodal-CoT does.

    Raises:
        DataError: If ``max_source`` has no room for labels, letters and cue, and ``keep`` needs it.
    """
    sources = encode_sources(tokenizer, [row.parts for row in inputs], max_source, truncation)
    texts = ["" if max_target is None else row.target or "" for row in inputs]
    targets = encode_texts(tokenizer, texts, max_target or 1)
    cuts = CutReport.of(sources, max_source, truncation, targets, max_target)
    return EncodedInputs(sources=sources, targets=targets, cuts=cuts)


def write_inputs(
    path: Path, inputs: Sequence[ModelInput], encoded: EncodedInputs | None = None
) -> None:
    """Write model inputs, atomically, with the columns question_id, source and target.

    Args:
        path: A ``.parquet`` file, or ``.jsonl`` with one JSON object a line.
        inputs: The rows; their order is kept.
        encoded: The same in tokens, for further columns: source_tokens, source_seen, source_cut,
            target_tokens, target_cut.

    Raises:
        DataError: If the name ends in something else.
    """
    rows: list[dict[str, Any]] = [
        {"question_id": row.question_id, "source": row.source, "target": row.target}
        for row in inputs
    ]
    schema = _SCHEMA
    if encoded is not None:
        for row, source, target in zip(rows, encoded.sources, encoded.targets, strict=True):
            row |= {
                "source_tokens": source.num_tokens,
                "source_seen": source.seen,
                "source_cut": source.cut,
                "target_tokens": None if row["target"] is None else target.num_tokens,
                "target_cut": target.cut,
            }
        schema = pl.Schema([*_SCHEMA.items(), *_TOKEN_SCHEMA.items()])
    write_rows(path, rows, schema)
