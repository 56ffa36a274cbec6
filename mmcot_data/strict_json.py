"""JSON that says what is wrong with it, and in which no key occurs twice."""

import json
from typing import Any

from mmcot_data.errors import DataError

__all__ = ["parse_json"]


def parse_json(text: str, where: str) -> Any:
    """Parse a JSON document.

    Args:
        text: The document.
        where: Names it in errors.

    Raises:
        DataError: If it is not valid JSON, or a key occurs twice in an object, of which other
            parsers silently take the last.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not valid JSON: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for number, key in enumerate(keys) if key in keys[:number])
        raise ValueError(f"the key {twice!r} occurs more than once in an object")
    return content
