"""Some questions of a split: those of a subject, a skill, a grade."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from mmcot_data.errors import DataError
from mmcot_data.questions import Question

__all__ = ["SUBSET_FIELDS", "Condition", "select_where"]

SUBSET_FIELDS = ("dataset", "subject", "topic", "category", "skill", "grade", "task")
"""Fields of a question by which a subset can be chosen."""
_MAX_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Condition:
    """That a field of a question has a value.

    Raises:
        ValueError: If there is no such field to choose by.
    """

    field: str
    value: str

    def __post_init__(self) -> None:
        if self.field not in SUBSET_FIELDS:
            raise ValueError(
                f"no field {self.field!r}; expected FIELD=VALUE with one of the fields "
                f"{', '.join(SUBSET_FIELDS)}"
            )

    def __str__(self) -> str:
        return f"{self.field}={self.value}"

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """The condition that ``FIELD=VALUE`` says.

        Raises:
            ValueError: If it is not of this form, or there is no such field.
        """
        field, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f'{text!r}: expected FIELD=VALUE, such as subject="social science"')
        return cls(field.strip(), value.strip())


def select_where(questions: Sequence[Question], conditions: Sequence[Condition]) -> list[Question]:
    """The questions that fulfil a condition on each field that is named.

    Conditions on the same field are alternatives.

    Args:
        questions: The questions; their order is kept.
        conditions: None chooses all questions.

    Raises:
        DataError: If no question has a value that is asked for, or none fulfils all conditions.
    """
    wanted: dict[str, set[str]] = {}
    for condition in conditions:
        there = {getattr(question, condition.field) for question in questions}
        if condition.value not in there:
            raise DataError(
                f"no question has the {condition.field} {condition.value!r}; there are: "
                f"{_listed(there, condition.value)}"
            )
        wanted.setdefault(condition.field, set()).add(condition.value)
    chosen = [
        question
        for question in questions
        if all(getattr(question, field) in values for field, values in wanted.items())
    ]
    if not chosen:
        raise DataError(
            f"none of the {len(questions)} questions fulfils {' and '.join(map(str, conditions))}: "
            "each value exists, but not together"
        )
    return chosen


def _listed(values: set[str], like: str) -> str:
    """The values, the most similar first; the rest of many is only counted."""
    close = difflib.get_close_matches(like, values, n=_MAX_SHOWN, cutoff=0.5)
    ordered = [*close, *sorted(values.difference(close))]
    shown = ", ".join(repr(value) for value in ordered[:_MAX_SHOWN])
    more = len(ordered) - _MAX_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
