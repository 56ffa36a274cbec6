"""The table of a teacher's rationales: what every producer has, and how each row came about."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from mmcot_data.growing_artifact import Row
from mmcot_data.rationales import RATIONALE_SCHEMA, KeepRule, kept_marks
from mmcot_data.teacher.chains import Chain, Item
from mmcot_data.teacher.config import Method

__all__ = ["TEACHER_SCHEMA", "is_correct", "make_row", "usable_marks"]

TEACHER_SCHEMA = pl.Schema(
    {
        **RATIONALE_SCHEMA,
        "prompt": pl.String(),
        "completion": pl.String(),
        "answer_prompt": pl.String(),
        "answer_completion": pl.String(),
        "steps": pl.List(pl.Struct({"question": pl.String(), "answer": pl.String()})),
    }
)

_FINISHED = ("stop", "length")
"""Reasons to end with a text."""


def make_row(item: Item, chain: Chain, method: Method) -> dict[str, Any]:
    """The row of one rationale, marked by the rule ``all``."""
    row: dict[str, Any] = dict.fromkeys(TEACHER_SCHEMA)
    row |= chain.columns()
    return row | {
        "question_id": item.question.question_id,
        "sample": item.sample,
        "correct": is_correct(chain.answer, item.question.answer),
        "kept": _is_usable(row),
        "prompt_format": method,
    }


def is_correct(answer: int | None, gold: int | None) -> bool | None:
    """Whether an answer is right; None if either is unknown."""
    return None if answer is None or gold is None else answer == gold


def usable_marks(rows: Sequence[Row], rule: KeepRule) -> list[bool]:
    """Which rationales a rule keeps; never one that is empty or was refused by the server."""
    return [
        kept and _is_usable(row) for kept, row in zip(kept_marks(rows, rule), rows, strict=True)
    ]


def _is_usable(row: Row) -> bool:
    return bool(row["completion"].strip()) and row["finish_reason"] in _FINISHED
