"""Make values of the cells of a record, or name what is wrong with each."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from posixpath import normpath
from typing import Any

from mmcot_data.question_tables.columns import CHOICES, OPTIONAL_TEXTS, image_role, is_letter
from mmcot_data.question_tables.faults import BadValueError, TableFaults
from mmcot_data.question_tables.ids import UniqueIds, make_id
from mmcot_data.question_tables.raw import RawRow
from mmcot_data.question_tables.values import (
    read_answer,
    read_choices,
    read_grade,
    read_id,
    read_lettered_choices,
    read_needed_text,
    read_path,
    read_picture,
    read_split,
    read_text,
)
from mmcot_data.questions import OPTION_LETTERS

__all__ = ["RowReader", "TableRow"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """A record without faults."""

    question_id: str
    """The table's own, or made of the content."""
    split: str | None
    """None where the table has no splits."""
    choices: tuple[str, ...]
    answer: int | None
    texts: Mapping[str, Any]
    """By the names of ``Question``'s fields."""
    caption: str
    pictures: Mapping[str, str]
    """Paths by image role, in the order of roles."""

    @property
    def key(self) -> str:
        """What decides about its split, where the table does not: a picture's path, or the id."""
        picture = next(iter(self.pictures.values()), None)
        return self.question_id if picture is None else normpath(picture)


class RowReader:
    """Reads the records of one table.

    Args:
        columns: All known columns of the table.
        convert: As in ``RawTable``.
        folder: That paths of pictures are relative to.
        faults: Told what is wrong.
    """

    def __init__(
        self,
        columns: Collection[str],
        convert: Mapping[str, Callable[[Any], Any]],
        folder: Path,
        faults: TableFaults,
    ) -> None:
        self._convert = convert
        self._faults = faults
        self._ids = UniqueIds(faults)
        self._letters = sorted(filter(is_letter, columns))
        self._pictures = sorted(filter(image_role, columns), key=_role_order)
        find = cache(partial(read_path, folder))  # many questions may share a picture
        read_one = partial(read_picture, find=find)
        readers: dict[str, Callable[[Any], Any]] = {
            "question": read_needed_text,
            "question_id": read_id,
            "split": read_split,
            "grade": read_grade,
            "caption": read_text,
            **dict.fromkeys(OPTIONAL_TEXTS, read_text),
            **dict.fromkeys(self._pictures, read_one),
        }
        self._readers = {column: readers[column] for column in columns if column in readers}

    def read(self, raw: RawRow, missing: Collection[str]) -> TableRow | None:
        """Read a record.

        Args:
            raw: The record.
            missing: Columns whose absence from it is noted already.

        Returns:
            None if it has faults, which are noted.
        """
        values: dict[str, Any] = {}
        is_good = not missing
        for column, read in self._readers.items():
            if column not in missing:
                is_good &= self._read_cell(raw, column, read, values)
        if CHOICES in raw.cells:
            is_good &= self._read_cell(raw, CHOICES, read_choices, values)
        elif CHOICES not in missing:
            is_good &= self._read_letters(raw, values)
        if "answer" not in missing:
            num_choices = len(values.get(CHOICES, OPTION_LETTERS))
            read_one = partial(read_answer, num_choices=num_choices)
            is_good &= self._read_cell(raw, "answer", read_one, values)
        row = self._make_row(values) if is_good else None
        if "question_id" in values:
            self._ids.add(values["question_id"], raw.place, is_made=False)
        elif row is not None:
            self._ids.add(row.question_id, raw.place, is_made=True)
        return row

    def _read_cell(
        self, raw: RawRow, column: str, read: Callable[[Any], Any], values: dict[str, Any]
    ) -> bool:
        cell = raw.cells.get(column)
        try:
            if cell is not None and column in self._convert:
                cell = self._convert[column](cell)
            values[column] = read(cell)
        except BadValueError as error:
            self._faults.add(raw.place, column, str(error))
            return False
        return True

    def _read_letters(self, raw: RawRow, values: dict[str, Any]) -> bool:
        cells = {column: raw.cells.get(column) for column in self._letters}
        choices, faults = read_lettered_choices(cells)
        for column, message in faults:
            self._faults.add(raw.place, column, message)
        if faults or len(choices) < 2:  # a single column is a fault of the header
            return False
        values[CHOICES] = choices
        return True

    def _make_row(self, values: Mapping[str, Any]) -> TableRow:
        paths = {
            str(image_role(column)): values[column]
            for column in self._pictures
            if values[column] is not None
        }
        texts = {name: values.get(name, "") for name in ("question", "grade", *OPTIONAL_TEXTS)}
        split, choices = values.get("split"), values[CHOICES]
        made_id = partial(make_id, split, texts["question"], choices, texts["hint"], paths)
        return TableRow(
            question_id=values["question_id"] if "question_id" in values else made_id(),
            split=split,
            choices=choices,
            answer=values["answer"],
            texts=texts,
            caption=values.get("caption", ""),
            pictures=paths,
        )


def _role_order(column: str) -> tuple[bool, int]:
    number = re.search(r"\d+", column)
    return column.startswith("choice_"), int(number[0]) if number else 0
