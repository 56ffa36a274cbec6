"""What is wrong with a table: all faults together, each with its line and column."""

from pathlib import Path

from mmcot_data.errors import DataError

__all__ = ["BadValueError", "TableFaults"]

_MAX_SHOWN = 20


class BadValueError(Exception):
    """A cell is not what its column holds; the message says what was expected and what found."""


class TableFaults:
    """The faults of one table.

    Args:
        path: The table.
        by_row: Places are rows, not lines; both are counted from 1.
    """

    def __init__(self, path: Path, *, by_row: bool = False) -> None:
        self._path = path
        self._by_row = by_row
        self._faults: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, place: int | None, column: str | None, message: str) -> None:
        """Note a fault.

        Args:
            place: Line or row; None for one of the whole table.
            column: Its name; None for one of the whole line or row.
            message: What was expected, and what found.
        """
        where = str(self._path)
        if place is not None:
            where += f": row {place}" if self._by_row else f":{place}"
        if column is not None:
            where += f": {column if column.isidentifier() else repr(column)}"
        self._faults.append((place or 0, f"{where}: {message}"))

    def name_place(self, place: int) -> str:
        """``line 7`` or ``row 7``."""
        return f"{'row' if self._by_row else 'line'} {place}"

    def check(self) -> None:
        """Raise all that was noted, in the order of the table.

        Raises:
            DataError: If there is anything; it shows the first 20 and counts all.
        """
        if not self._faults:
            return
        faults = [text for _, text in sorted(self._faults, key=lambda fault: fault[0])]
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        shown = "".join(f"\n  {fault}" for fault in faults[:_MAX_SHOWN])
        more = f"\n  and {len(faults) - _MAX_SHOWN} more" if len(faults) > _MAX_SHOWN else ""
        raise DataError(f"{self._path}: {count} in the table of questions:{shown}{more}")
