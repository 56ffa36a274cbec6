"""A table of questions as its file has it, before anything is made of its cells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["RawRow", "RawTable"]


@dataclass(frozen=True, slots=True)
class RawRow:
    """One record."""

    place: int
    """The line it begins on, or the number of the row; from 1."""
    cells: Mapping[str, Any]
    """By column, as JSON's types."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RawTable:
    """All records."""

    rows: Sequence[RawRow]
    header: Sequence[str] | None
    """The names of the columns; None where each record has its own."""
    header_place: int | None = None
    """The line of the header."""
    convert: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    """By column, what makes JSON's types of a cell where the file has texts only; raises
    ``BadValueError``."""
