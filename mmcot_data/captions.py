"""Captions: text for pictures, by producer, as the table captions/<producer>.parquet."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.text_artifacts import read_artifact, write_artifact

__all__ = ["Caption", "read_caption_json", "read_captions", "write_captions"]

_SCHEMA = pl.Schema({"question_id": pl.String(), "role": pl.String(), "caption": pl.String()})
_KEY = ("question_id", "role")


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
    table = pl.DataFrame([asdict(caption) for caption in captions], schema=_SCHEMA)
    write_artifact(path, table, _KEY, made_by)


def read_captions(path: Path, role: str = "question") -> dict[str, str]:
    """The captions of the pictures in one role, by question id.

    Raises:
        DataError: If the file is absent or not a captions table.
    """
    table = read_artifact(path, _SCHEMA, _KEY).filter(pl.col("role") == role)
    return dict(zip(table["question_id"], table["caption"], strict=True))


def read_caption_json(path: Path) -> dict[str, str]:
    """Read a caption file of ScienceQA or of Multimodal-CoT.

    Both known shapes are accepted: ``{"captions": {question id: text}, …}`` and the flat
    ``{question id: text}``; a text may stand in a list of one, as captioners return it.

    Raises:
        DataError: If the file is absent, not JSON, or has another shape.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; expected a JSON file of captions")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from error
    captions = content.get("captions", content) if isinstance(content, dict) else content
    if not isinstance(captions, dict):
        raise DataError(
            f"{path}: expected an object of captions by question id, "
            f"found {type(captions).__name__}"
        )
    return {question_id: _text(path, question_id, value) for question_id, value in captions.items()}


def _text(path: Path, question_id: str, value: object) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise DataError(
            f"{path}: caption of question {question_id!r}: expected a text or a list of one, "
            f"found {value!r}"
        )
    return value
