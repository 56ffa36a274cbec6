"""What the cells of a table of questions may hold."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mmcot_data.question_tables.faults import BadValueError
from mmcot_data.questions import OPTION_LETTERS, SPLITS

__all__ = [
    "read_answer",
    "read_choices",
    "read_grade",
    "read_id",
    "read_lettered_choices",
    "read_needed_text",
    "read_path",
    "read_picture",
    "read_split",
    "read_text",
    "show",
]

_MAX_CHOICES = len(OPTION_LETTERS)
_SPLIT_NAMES = {split: split for split in SPLITS} | {"validation": "val", "dev": "val"}
_DIGITS = re.compile(r"[0-9]+")


def show(value: object) -> str:
    """A cell for an error, cut where it is long."""
    return "nothing" if value in (None, "") else f"{value!r:.80}"


def read_text(value: Any) -> str:
    """A text that may be absent, which is an empty one.

    Raises:
        BadValueError: If it is something else, or no table can hold it.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadValueError(f"expected a text, found {show(value)}")
    if "\0" in value:
        raise BadValueError(f"expected a text without NUL bytes, found {show(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadValueError(f"expected a text in UTF-8, found {show(value)}") from error
    return value


def read_needed_text(value: Any) -> str:
    """A text that has to be there.

    Raises:
        BadValueError: If it is empty or none.
    """
    text = read_text(value)
    if not text.strip():
        raise BadValueError(f"expected a text, found {show(value)}")
    return text


def read_id(value: Any) -> str:
    """A question id: a text or a whole number.

    Raises:
        BadValueError: If it is neither, or absent.
    """
    if type(value) is int:
        return str(value)
    if value is None or not isinstance(value, str) or not value.strip():
        raise BadValueError(
            f"expected a text or a whole number for every question, found {show(value)}"
        )
    return read_text(value)


def read_choices(value: Any) -> tuple[str, ...]:
    """The choices of a question, from a list.

    Raises:
        BadValueError: If it is no list of 2 to 26 texts.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadValueError(f"expected a list of texts, found {show(value)}")
    if not 2 <= len(value) <= _MAX_CHOICES:
        raise BadValueError(f"expected 2 to {_MAX_CHOICES} choices, found {len(value)}")
    return tuple(map(read_needed_text, value))


def read_lettered_choices(
    cells: Mapping[str, Any],
) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """The choices of a question, from a cell for each.

    Args:
        cells: By their columns choice_a, choice_b, …. Empty ones at the end are no choices.

    Returns:
        The choices; and a column and a sentence for each that is wrong.
    """
    there = [number for number, value in enumerate(cells.values()) if value not in (None, "")]
    num_choices = max(2, there[-1] + 1 if there else 0)
    choices: list[str] = []
    faults: list[tuple[str, str]] = []
    for column, value in list(cells.items())[:num_choices]:
        try:
            choices.append(read_needed_text(value))
        except BadValueError as error:
            faults.append((column, str(error)))
    return tuple(choices), faults


def read_answer(value: Any, num_choices: int) -> int | None:
    """The index of the right choice; None where it is hidden.

    Raises:
        BadValueError: If it is neither an index nor a letter of one of the choices.
    """
    if value in (None, ""):
        return None
    index = value if type(value) is int else -1
    if isinstance(value, str) and len(value) == 1:
        index = OPTION_LETTERS.find(value)
    if not 0 <= index < num_choices:
        raise BadValueError(
            f"expected the index of a choice, 0 to {num_choices - 1}, or its letter, A to "
            f"{OPTION_LETTERS[num_choices - 1]} (not its text), found {show(value)}"
        )
    return index


def read_split(value: Any) -> str:
    """The split of a question.

    Raises:
        BadValueError: If there is no such split.
    """
    if not isinstance(value, str) or value not in _SPLIT_NAMES:
        raise BadValueError(
            f"expected {', '.join(SPLITS)} (or validation, dev) for every question, or no column "
            f"split at all, found {show(value)}"
        )
    return _SPLIT_NAMES[value]


def read_grade(value: Any) -> str:
    """A grade: a text, or 1 to 12, which become grade1 to grade12.

    Raises:
        BadValueError: If it is neither.
    """
    number = value if type(value) is int else None
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        number = int(value) if len(value) <= 2 else 0
    if number is None:
        return read_text(value)
    if not 1 <= number <= 12:
        raise BadValueError(f"expected a text or a grade from 1 to 12, found {show(value)}")
    return f"grade{number}"


def read_picture(value: Any, find: Callable[[str], str]) -> str | None:
    """The path of a picture; None where there is none.

    Args:
        value: The cell.
        find: ``read_path`` for the table's folder.

    Raises:
        BadValueError: If it is no text, or as ``find``.
    """
    text = read_text(value)
    return find(text) if text else None


def read_path(folder: Path, text: str) -> str:
    """The path of a file, with ``/``.

    Args:
        folder: Of the table.
        text: A path relative to it, or an absolute one.

    Raises:
        BadValueError: If there is no such file.
    """
    expected = "expected the path of a picture, absolute or from the table's folder"
    try:
        is_there = (folder / text).is_file()
    except OSError as error:
        raise BadValueError(f"{expected}, found {show(text)}: {error.strerror}") from error
    if not is_there:
        slashes = "; write paths with / instead of \\" if "\\" in text else ""
        raise BadValueError(
            f"{expected}, found {show(text)}: there is no such file"
            f"{'' if Path(text).is_absolute() else f' in {folder}'}{slashes}"
        )
    return str(PurePosixPath(text))
