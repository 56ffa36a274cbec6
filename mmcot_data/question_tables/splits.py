"""Assign splits to questions that have none, so that none ever changes sides."""

import hashlib
import re
from dataclasses import dataclass

from mmcot_data.errors import DataError

__all__ = ["SplitShares"]

_SHARES = re.compile(r"(\d{1,3})/(\d{1,3})/(\d{1,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class SplitShares:
    """Percentages of the splits, as ``80/10/10``."""

    train: int
    val: int
    test: int

    def __str__(self) -> str:
        return f"{self.train}/{self.val}/{self.test}"

    @classmethod
    def parse(cls, text: str, where: str) -> "SplitShares":
        """Read a text.

        Args:
            text: As ``80/10/10``.
            where: What has it, for errors.

        Raises:
            DataError: If it is something else than three percentages that add up to 100.
        """
        match = _SHARES.fullmatch(text)
        shares = [int(share) for share in match.groups()] if match else []
        if sum(shares) != 100:
            raise DataError(
                f"{where}: expected the percentages of train, val and test, which add up to 100, "
                f"as 80/10/10; found {text!r}"
            )
        return cls(*shares)

    def assign(self, key: str) -> str:
        """The split of all questions with a key, by nothing but the key.

        The sha256 of the key, as a number modulo 100, is below ``train``, or below ``train`` and
        ``val`` together, or not.
        """
        number = int(hashlib.sha256(key.encode()).hexdigest(), 16) % 100
        if number < self.train:
            return "train"
        return "val" if number < self.train + self.val else "test"
