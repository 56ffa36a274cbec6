"""The table of a teacher's rationales: what every producer has, and how each row came about."""

from typing import Any

import polars as pl

from mmcot_data.rationales import RATIONALE_SCHEMA, is_correct, is_usable
from mmcot_data.teacher.chains import Chain, Item
from mmcot_data.teacher.config import Method

__all__ = ["TEACHER_SCHEMA", "make_row"]

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


def make_row(item: Item, chain: Chain, method: Method) -> dict[str, Any]:
    """The row of one rationale, marked by the rule ``all``."""
    row: dict[str, Any] = dict.fromkeys(TEACHER_SCHEMA)
    row |= chain.columns()
    row |= {
        "question_id": item.question.question_id,
        "sample": item.sample,
        "correct": is_correct(chain.answer, item.question.answer),
        "prompt_format": method,
    }
    return row | {"kept": is_usable(row)}
