"""The columns of a table of questions: which are known, missing, misspelt or left out."""

import re
from collections.abc import Sequence
from difflib import get_close_matches

__all__ = ["CHOICES", "OPTIONAL_TEXTS", "check_columns", "image_role", "is_known", "is_letter"]

CHOICES = "choices"
_REQUIRED = ("question", CHOICES, "answer")
OPTIONAL_TEXTS = ("hint", "lecture", "solution", "subject", "topic", "category", "skill", "task")
"""Texts that are copied as they are; empty where they are absent."""
_OPTIONAL = (*OPTIONAL_TEXTS, "question_id", "split", "grade", "caption", "image")

_LETTERS = tuple(f"choice_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")
_INSTEAD = {CHOICES: " or choice_a, choice_b, …"}
_ROLE = re.compile(r"question_(?:[2-9]|[1-9]\d+)|choice_(?:0|[1-9]\d*)", re.ASCII)
_SIMILAR = 0.8
_OFTEN_MEANT = {
    "id": "question_id",
    "pid": "question_id",
    "options": CHOICES,
    "label": "answer",
    "context": "hint",
    "explanation": "solution",
    "image_path": "image",
    "picture": "image",
}


def is_known(column: str) -> bool:
    """Whether a column is read."""
    return column in _REQUIRED or column in _OPTIONAL or is_letter(column) or _is_role(column)


def is_letter(column: str) -> bool:
    """Whether a column holds one choice, as ``choice_a`` and ``choice_b`` do."""
    return column in _LETTERS


def image_role(column: str) -> str | None:
    """The image role of a column of paths, ``question`` for ``image``; None for other columns."""
    if column == "image":
        return "question"
    return column if _is_role(column) else None


def check_columns(names: Sequence[str]) -> tuple[frozenset[str], list[tuple[str | None, str]]]:
    """Find what is wrong with the names of columns.

    Args:
        names: Of a header, or the keys of one line.

    Returns:
        The required columns that are absent (``choices`` is not where ``choice_a``, … take its
        place); and for each fault a column, or None, and a sentence.
    """
    faults: list[tuple[str | None, str]] = []
    present = set(names)
    meant: set[str] = set()
    for name in dict.fromkeys(names):
        if is_known(name):
            if (count := names.count(name)) > 1:
                faults.append((name, f"expected one column of this name, found {count}"))
        elif "\0" in name or not _is_unicode(name):
            faults.append((name, "expected a name in UTF-8 without NUL bytes"))
        elif (wanted := _find_meant(name, present)) is not None:
            meant.add(CHOICES if is_letter(wanted) else wanted)
            faults.append(
                (name, f"expected a known column, found {name!r}: did you mean {wanted}?")
            )
    letters = [name for name in _LETTERS if name in present]
    if letters and CHOICES in present:
        faults.append((CHOICES, f"expected either this column or {letters[0]}, …, found both"))
    if letters == [_LETTERS[0]]:
        faults.append((letters[0], f"expected at least 2 choices, found no {_LETTERS[1]}"))
    if letters != list(_LETTERS[: len(letters)]):
        gap = next(name for name in _LETTERS if name not in present)
        faults.append((letters[-1], f"expected the columns before it too, found no {gap}"))
    missing = {name for name in _REQUIRED if name not in present}
    if letters:
        missing.discard(CHOICES)
    found = ", ".join(map(repr, names)) or "none"
    faults += [
        (name, f"expected this column{_INSTEAD.get(name, '')}, found {found:.300}")
        for name in _REQUIRED
        if name in missing - meant
    ]
    return frozenset(missing), faults


def _is_role(column: str) -> bool:
    return _ROLE.fullmatch(column) is not None


def _find_meant(name: str, present: set[str]) -> str | None:
    """The absent column that an unknown one was probably meant to be."""
    plain = name.strip().lower()
    if (number := re.fullmatch(r"image_?(\d+)", plain)) is not None:
        plain = f"question_{number[1]}"
    plain = _OFTEN_MEANT.get(plain, plain)
    if is_known(plain):
        return plain if plain not in present else None
    absent = [
        known
        for known in (*_REQUIRED, *_OPTIONAL, *_LETTERS)
        if known not in present and not plain.startswith(f"{known}_")
    ]
    swapped = [known for known in absent if sorted(known) == sorted(plain)]
    similar = get_close_matches(plain, absent, n=1, cutoff=_SIMILAR)
    return next(iter(swapped + similar), None)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
