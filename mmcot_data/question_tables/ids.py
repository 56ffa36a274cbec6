"""Question ids: those of the table, or made of what a question says; each occurs once."""

import hashlib
import json
from collections.abc import Mapping, Sequence

from mmcot_data.question_tables.faults import TableFaults

__all__ = ["UniqueIds", "make_id"]

_NUM_DIGITS = 16


def make_id(
    split: str | None,
    question: str,
    choices: Sequence[str],
    hint: str,
    pictures: Mapping[str, str],
) -> str:
    """An id that depends on what is asked, not on where the question stands in its table.

    Args:
        split: As the table has it.
        question: The question.
        choices: Its choices.
        hint: Its hint.
        pictures: Their paths by image role.

    Returns:
        16 hex digits of a sha256.
    """
    identity = [split, question, list(choices), hint, list(pictures.items())]
    content = json.dumps(identity, ensure_ascii=False).encode()
    return hashlib.sha256(content).hexdigest()[:_NUM_DIGITS]


class UniqueIds:
    """Notes a fault where a question id occurs again.

    Args:
        faults: Told of it.
    """

    def __init__(self, faults: TableFaults) -> None:
        self._faults = faults
        self._places: dict[str, int] = {}

    def add(self, question_id: str, place: int, *, is_made: bool) -> None:
        """Note an id.

        Args:
            question_id: The id.
            place: Its line or row.
            is_made: ``make_id`` made it.
        """
        first = self._places.setdefault(question_id, place)
        if first == place:
            return
        if is_made:
            self._faults.add(
                place,
                None,
                "expected a question of its own, found the split, question, choices, hint and "
                f"pictures of {self._faults.name_place(first)}: leave one of them out, or give "
                "the table a column question_id",
            )
        else:
            self._faults.add(
                place,
                "question_id",
                f"expected an id of its own, found {question_id!r:.80}, as on "
                f"{self._faults.name_place(first)}",
            )
