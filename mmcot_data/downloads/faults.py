"""Everything that is wrong with a file, counted, the first ten named."""

from mmcot_data.errors import DataError

__all__ = ["Faults"]

_MAX_SHOWN = 10


class Faults:
    """What is wrong. False while nothing is."""

    def __init__(self) -> None:
        self._count = 0
        self._shown: list[str] = []

    def __bool__(self) -> bool:
        return self._count > 0

    def add(self, fault: str) -> None:
        """Note one."""
        self._count += 1
        if self._count <= _MAX_SHOWN:
            self._shown.append(fault)

    def raise_if_any(self, what: str, advice: str = "") -> None:
        """Name them.

        Args:
            what: What has them, at the beginning of the error.
            advice: What to do, at its end.

        Raises:
            DataError: If there are any.
        """
        if not self._count:
            return
        lines = [f"{what}: {self._count} fault{'s' if self._count > 1 else ''}:", *self._shown]
        if self._count > len(self._shown):
            lines.append(f"and {self._count - len(self._shown)} more")
        raise DataError("\n  ".join(lines) + (f"\n{advice}" if advice else ""))
