"""Captions: text for pictures, by producer, as the table captions/<producer>.parquet."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.strict_json import parse_json
from mmcot_data.text_artifacts import read_artifact, write_artifact, write_artifact_once

__all__ = [
    "CAPTION_KEY",
    "CAPTION_SCHEMA",
    "Caption",
    "read_caption_file",
    "read_caption_json",
    "read_captions",
    "write_captions",
    "write_captions_once",
]

CAPTION_SCHEMA = pl.Schema(
    {"question_id": pl.String(), "role": pl.String(), "caption": pl.String()}
)
CAPTION_KEY = ("question_id", "role")
_CAPTIONS = "captions"


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """The caption of one picture of one question."""

    question_id: str
    role: str = "question"
    """Image role of the picture: ``question``, ``question_2``, ``choice_0``, …"""
    caption: str


def write_captions(path: Path, captions: Iterable[Caption], made_by: dict[str, Any]) -> None:
    """Write a captions table, atomically.

    Args:
        path: ``<artifact root>/captions/<producer>.parquet``.
        captions: The rows, in any order; it is kept.
        made_by: What made them: model, settings, source file.

    Raises:
        DataError: If a picture has two captions.
    """
    table = pl.DataFrame([asdict(caption) for caption in captions], schema=CAPTION_SCHEMA)
    write_artifact(path, table, CAPTION_KEY, made_by)


def write_captions_once(path: Path, captions: Iterable[Caption], made_by: dict[str, Any]) -> bool:
    """Write a captions table if it is not there, and see that it is the same if it is.

    Returns:
        Whether it was written.

    Raises:
        DataError: If another table stands there, or a picture has two captions.
    """
    table = pl.DataFrame([asdict(caption) for caption in captions], schema=CAPTION_SCHEMA)
    return write_artifact_once(path, table, CAPTION_KEY, made_by, marks=("source",))


def read_captions(path: Path, role: str | Sequence[str] = "question") -> dict[str, str]:
    """The captions of the pictures in one role, by question id.

    Args:
        path: ``<artifact root>/captions/<producer>.parquet``.
        role: The image role. Of several, a question gets the caption of the first that has one:
            ``("question", "choice_0")`` is the rule of Multimodal-CoT.

    Raises:
        DataError: If the file is absent or not a captions table.
    """
    table = read_artifact(path, CAPTION_SCHEMA, CAPTION_KEY)
    captions: dict[str, str] = {}
    for name in (role,) if isinstance(role, str) else role:
        of_role = table.filter(pl.col("role") == name)
        captions = dict(zip(of_role["question_id"], of_role["caption"], strict=True)) | captions
    return captions


def read_caption_json(path: Path) -> dict[str, str]:
    """Read a caption file of ScienceQA or of Multimodal-CoT, as ``read_caption_file``."""
    captions, _ = read_caption_file(path)
    return captions


def read_caption_file(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Read a caption file of ScienceQA or of Multimodal-CoT, with what it says about itself.

    Both known shapes are accepted: ``{"captions": {question id: text}, …}`` and the flat
    ``{question id: text}``; a text may stand in a list of one, as captioners return it.

    Returns:
        Caption by question id; and what stands beside ``captions``: model, number of beams, …

    Raises:
        DataError: If the file is absent, not JSON, or has another shape.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a JSON file of captions")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid JSON: expected text in UTF-8: {error}") from error
    content = parse_json(text, str(path))
    captions, about = content, {}
    if isinstance(content, dict) and _CAPTIONS in content:
        captions = content[_CAPTIONS]
        about = {name: value for name, value in content.items() if name != _CAPTIONS}
    if not isinstance(captions, dict):
        raise DataError(
            f"{path}: expected an object of captions by question id, "
            f"found {type(captions).__name__}"
        )
    return {key: _text(path, key, value) for key, value in captions.items()}, about


def _text(path: Path, question_id: str, value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise DataError(
            f"{path}: caption of question {question_id!r}: expected a text or a list of one, "
            f"found {value!r:.200}"
        )
    return value
