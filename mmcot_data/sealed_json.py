"""JSON files that carry their own checksum, so that a changed byte is found when they are read.

The last entry of the object, ``self_sha256``, is the sha256 of the file with these 64 digits
replaced by zeros.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from mmcot_data.errors import ShardError
from mmcot_data.files import write_bytes

__all__ = ["parse_sealed_json", "seal_json", "write_sealed_json"]

_SEAL = re.compile(rb'"self_sha256": "([0-9a-f]{64})"\n\}\n\Z')
_ZEROS = b"0" * 64
_ADVICE = (
    "restore it from a copy, or delete it and run what made the feature set again: shards that are "
    "complete stay"
)


def seal_json(value: dict[str, Any]) -> bytes:
    """A JSON object as indented UTF-8 with its checksum as last entry."""
    sealed = value | {"self_sha256": _ZEROS.decode()}
    text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest().encode()
    seal = _SEAL.search(data)
    assert seal is not None
    return data[: seal.start(1)] + digest + data[seal.end(1) :]


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Write ``seal_json(value)``, atomically."""
    write_bytes(path, seal_json(value))


def parse_sealed_json(data: bytes, where: str) -> dict[str, Any]:
    """The object, without its checksum.

    Args:
        data: The file.
        where: Names the file in errors.

    Raises:
        ShardError: If the checksum is missing or is not that of the file.
    """
    seal = _SEAL.search(data)
    if seal is None:
        raise ShardError(
            f"{where} is damaged, cut off, or of an earlier version of mmcot: it does not end with "
            f"its checksum (self_sha256); {_ADVICE}"
        )
    expected = seal.group(1).decode()
    found = hashlib.sha256(data[: seal.start(1)] + _ZEROS + data[seal.end(1) :]).hexdigest()
    if found != expected:
        raise ShardError(
            f"{where} is damaged: its checksum is {found}, it says {expected}; {_ADVICE}"
        )
    value: dict[str, Any] = json.loads(data)
    del value["self_sha256"]
    return value
