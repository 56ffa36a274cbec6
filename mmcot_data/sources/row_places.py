"""The place of a picture in a table, as index.parquet's column ``file`` says it."""

import re
from dataclasses import dataclass

__all__ = ["RowPlace"]

_PLACE = re.compile(r"(?P<table>.*)#(?P<row>\d+)(?:/(?P<position>\d+))?(?::(?P<column>.*))?", re.S)


@dataclass(frozen=True, slots=True)
class RowPlace:
    """As a text: ``data/train-0.parquet#7``, ``#7/1`` for the second picture of a list.

    A column that was asked for by its name follows after a colon: ``#7:photo``.
    """

    table: str
    """Path within the data set: a parquet file, or a split of a saved dataset."""
    row: int
    position: int = 0
    column: str | None = None

    def __str__(self) -> str:
        position = f"/{self.position}" if self.position else ""
        column = f":{self.column}" if self.column is not None else ""
        return f"{self.table}#{self.row}{position}{column}"

    @classmethod
    def parse(cls, text: str) -> "RowPlace | None":
        """Read a text; None if it is no place in a table."""
        match = _PLACE.fullmatch(text)
        if match is None:
            return None
        return cls(match["table"], int(match["row"]), int(match["position"] or 0), match["column"])
