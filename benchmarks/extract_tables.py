"""The tables of a comparison, and what has to be known to read them."""

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.extract_timing import Timing
from benchmarks.measuring import print_table

__all__ = ["Comparison", "Row"]

_BUSY = 0.9


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What was measured of one way to extract, or of one of its limits."""

    timing: Timing
    limit: str | None = None
    """Name of the row that computes alone with the same settings; None for limits."""
    memory_mib: float | None = None
    relative_error: float | None = None
    """Norm of the difference to the first way's features over the norm of those."""
    largest_error: float | None = None
    """Largest difference to the first way's features over the largest of those."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The rows of one encoder by name."""

    encoder: str
    num_images: int
    num_threads: int
    rows: dict[str, Row]
    decode: str
    """Name of the row that decodes alone."""
    reference: str
    """Name of the way that the others are compared with."""
    notes: list[str]

    def print(self) -> None:
        """Speeds; memory and features; notes."""
        ways = {name: row for name, row in self.rows.items() if row.limit}
        title = f"{self.encoder}, {self.num_images} pictures"
        print_table(
            f"{title}: speed",
            ("", "img/s", "best", "of limit", "by CPU", "x loop", "by CPU", "CPU ms/img", "cores"),
            [self._speeds(name) for name in self.rows],
        )
        print_table(
            f"{title}: memory above the model's, difference to {self.reference}",
            ("", "MiB", "norm", "largest"),
            [
                (
                    name,
                    f"{row.memory_mib:,.0f}",
                    f"{row.relative_error:.1e}",
                    f"{row.largest_error:.1e}",
                )
                for name, row in ways.items()
            ],
        )
        for note in (*self.notes, self._ceilings(), *self._disturbances()):
            print(f"* {note}")

    def as_json(self) -> dict[str, Any]:
        """All figures, those of the single rounds included."""
        return asdict(self)

    def _speeds(self, name: str) -> tuple[str, ...]:
        row, num = self.rows[name], self.num_images
        own = row.timing
        cells = [name, f"{own.rate(num):,.1f}", f"{own.best_rate(num):,.1f}"]
        for other in (row.limit, row.limit and self.reference):
            if other:
                base = self.rows[other].timing
                cells += [f"{own.rate(num) / base.rate(num):.2f}", f"{base.cpu / own.cpu:.2f}"]
            else:
                cells += ["", ""]
        return (*cells, f"{1000 * own.cpu / num:.1f}", f"{own.cores:.2f}")

    def _ceilings(self) -> str:
        """Cores that decode do not compute meanwhile."""
        decode = self.rows[self.decode].timing.cpu
        parts = [
            f"{name} {limit.cpu / (limit.cpu + decode):.2f}"
            for name, row in self.rows.items()
            if row.limit and (limit := self.rows[row.limit].timing)
        ]
        return f"most that decoding leaves of the limit on the same cores: {'; '.join(parts)}"

    def _disturbances(self) -> list[str]:
        rows = self.rows.items()
        disturbed = [name for name, row in rows if row.timing.was_disturbed]
        idle = [
            name
            for name, row in rows
            if name not in disturbed and row.timing.cores < _BUSY * self.num_threads
        ]
        notes = []
        if disturbed:
            which = "all rows" if len(disturbed) == len(rows) else "; ".join(disturbed)
            notes.append(
                "disturbed, other processes took a tenth of a core or more, so that the columns "
                f"by CPU say more: {which}"
            )
        if idle:
            notes.append(f"left cores idle of themselves: {'; '.join(idle)}")
        return notes
