"""Read and check A-OKVQA's files: one JSON list of records for each split."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mmcot_data.downloads.faults import Faults
from mmcot_data.errors import DataError

__all__ = ["AOKVQARecord", "read_records"]

_HIDDEN = ("test",)
"""Splits without published answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AOKVQARecord:
    """One question."""

    question_id: str
    split: str
    question: str
    choices: tuple[str, ...]
    answer: int | None
    """None where it is hidden."""
    rationales: tuple[str, ...]
    image_id: int
    """Of COCO 2017."""

    @property
    def image(self) -> str:
        """Path of the picture, at COCO's server and in the data set's folder ``images``."""
        return f"{self.split}2017/{self.image_id:012}.jpg"


def read_records(folder: Path, names: Mapping[str, str]) -> list[AOKVQARecord]:
    """Read the records of several splits.

    Args:
        folder: Where the files are.
        names: File by split.

    Raises:
        DataError: If a file is absent or no JSON list, or records are malformed or share an id: all
            are counted, the first ten are named by file and place in the list.
    """
    faults = Faults()
    records: list[AOKVQARecord] = []
    seen: dict[str, str] = {}
    for split, name in names.items():
        values = _read_list(folder / name, name)
        for place, value in enumerate(values):
            where = f"{name}, record {place}"
            found = list(_record_faults(value, split))
            if not found and (other := seen.setdefault(value["question_id"], where)) != where:
                found = [f"question_id {value['question_id']!r} is that of {other} too"]
            for fault in found:
                faults.add(f"{where}: {fault}")
            if not found:
                records.append(_to_record(value, split))
        if not values:
            faults.add(f"{name}: expected records, found an empty list")
    faults.raise_if_any("A-OKVQA")
    return records


def _read_list(path: Path, name: str) -> list[Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"the archive of A-OKVQA has no {name}") from error
    except ValueError as error:
        raise DataError(f"{name}: not valid JSON: {error}") from error
    if not isinstance(content, list):
        raise DataError(f"{name}: expected a JSON list, found {type(content).__name__}")
    return content


def _record_faults(value: Any, split: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"expected an object, found {value!r:.80}"
        return
    for key in ("question_id", "question"):
        if not isinstance(value.get(key), str) or not value[key].strip():
            yield f"{key} is {value.get(key)!r:.80}, expected a text"
    if type(value.get("image_id")) is not int or not 0 <= value["image_id"] < 10**12:
        yield f"image_id is {value.get('image_id')!r:.80}, expected the number of a COCO picture"
    if value.get("split", split) != split:
        yield f"split is {value['split']!r:.80}, expected {split!r}"
    choices = value.get("choices")
    num_choices = len(choices) if _is_texts(choices) else 0
    if num_choices < 2:
        yield f"choices is {choices!r:.80}, expected a list of two texts or more"
    answer = value.get("correct_choice_idx")
    if answer is None and split not in _HIDDEN:
        yield "correct_choice_idx is missing"
    elif answer is not None and (type(answer) is not int or not 0 <= answer < num_choices):
        yield f"correct_choice_idx is {answer!r:.80}, expected the index of a choice"
    if not _is_texts(value.get("rationales", [])):
        yield f"rationales is {value['rationales']!r:.80}, expected a list of texts"


def _is_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _to_record(value: dict[str, Any], split: str) -> AOKVQARecord:
    return AOKVQARecord(
        question_id=value["question_id"],
        split=split,
        question=value["question"],
        choices=tuple(value["choices"]),
        answer=value.get("correct_choice_idx"),
        rationales=tuple(value.get("rationales", [])),
        image_id=value["image_id"],
    )
