"""What stands beside a table of questions: dataset.json with its name, licence and split shares."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcot_data.errors import DataError
from mmcot_data.question_tables.splits import SplitShares
from mmcot_data.strict_json import parse_json

__all__ = ["About", "read_about"]


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a table does not say itself."""

    name: str
    licence: str
    split_shares: SplitShares | None
    """None if it is not given."""


def read_about(table: Path) -> About:
    """Read the dataset.json in a table's folder.

    Without one, the name is that of the table's file, and the licence ``unknown``.

    Raises:
        DataError: If it is not what it should be.
    """
    path = table.parent / "dataset.json"
    if not path.exists():
        return About(name=table.stem, licence="unknown", split_shares=None)
    try:
        content: Any = parse_json(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected text in UTF-8: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    name, licence, shares = (content.get(key) for key in ("name", "licence", "split_shares"))
    if not (isinstance(name, str) and name and isinstance(licence, str) and licence):
        raise DataError(
            f"{path}: expected the texts 'name' and 'licence', found {name!r} and {licence!r}"
        )
    if shares is not None and not isinstance(shares, str):
        raise DataError(f"{path}: split_shares: expected a text as '80/10/10', found {shares!r}")
    return About(
        name=name,
        licence=licence,
        split_shares=None if shares is None else SplitShares.parse(shares, str(path)),
    )
