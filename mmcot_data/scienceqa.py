"""Read a data set in ScienceQA's official layout; no picture is opened.

The layout (Lu et al. 2022, https://github.com/lupantech/ScienceQA)::

    problems.json      {question id: record}
    pid_splits.json    {split: [question id, ...]}; the order of the lists matters
    captions.json      optional
    dataset.json       optional {"name", "licence"}: another data set in the same layout
    images/            <split>/<question id>/ or <question id>/, each with image.png,
                       image_2.png, choice_0.png, ...
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcot_data.captions import read_caption_json
from mmcot_data.errors import DataError
from mmcot_data.image_folders import find_image_folders, list_image_files
from mmcot_data.questions import SPLITS, Question
from mmcot_data.split_lists import question_places
from mmcot_data.strict_json import parse_json

__all__ = ["QuestionImage", "ScienceQA", "read_scienceqa"]

_TEXTS = (
    "question",
    "hint",
    "lecture",
    "solution",
    "subject",
    "topic",
    "category",
    "skill",
    "grade",
    "task",
    "split",
)
_MAX_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionImage:
    """One picture of one question."""

    question_id: str
    role: str
    """``question`` (image.png), ``question_2`` (image_2.png) or ``choice_N`` (choice_N.png)."""
    path: Path
    """Where the picture is; where it should be, if the record names one that is not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScienceQA:
    """A data set in ScienceQA's layout."""

    dataset: str
    licence: str
    questions: list[Question]
    """Ordered by split and official position."""
    images: list[QuestionImage]
    """In the order of the questions and of their ``image_roles``."""
    captions: dict[str, str] | None
    """Caption of the question image by question id; None without captions.json."""


def read_scienceqa(folder: Path) -> ScienceQA:
    """Read the questions, captions and picture paths of a data set.

    Both folder layouts of the pictures are accepted, question by question. Stray files and
    folders of no question are skipped. ``choice_N.png`` need not belong to ``choices[N]``: the
    official texts were shuffled and the files were not.

    Args:
        folder: Holds problems.json and pid_splits.json.

    Raises:
        DataError: If a file is absent or malformed. All bad records, list entries and picture
            folders are counted, and the first ten are named.
    """
    problems = _read_object(folder / "problems.json")
    lists = _read_object(folder / "pid_splits.json")
    dataset, licence = _identity(folder)
    splits = {question_id: _own_split(record) for question_id, record in problems.items()}
    places, list_faults = question_places(splits, lists)
    folders, folder_faults = find_image_folders(folder / "images", splits)
    faults = [f"pid_splits.json: {fault}" for fault in list_faults]
    faults += [f"images: {fault}" for fault in folder_faults]

    questions: list[Question] = []
    paths: dict[str, dict[str, Path]] = {}
    for question_id, record in problems.items():
        if record_faults := list(_record_faults(record)):
            faults += [f"problems.json: question {question_id!r}: {f}" for f in record_faults]
            continue
        if question_id not in places:
            continue
        has_image = record["image"] is not None
        files = paths[question_id] = list_image_files(folders[question_id], has_image=has_image)
        position, mini_position = places[question_id]
        try:
            question = Question(
                dataset=dataset,
                question_id=question_id,
                position=position,
                mini_position=mini_position,
                choices=tuple(record["choices"]),
                answer=record["answer"],
                has_image=has_image,
                image_roles=tuple(files),
                **{key: record[key] for key in _TEXTS},
            )
        except DataError as error:
            faults.append(f"problems.json: {error}")
        else:
            questions.append(question)
    if faults:
        raise DataError(_summary(folder, faults))

    questions.sort(key=lambda question: (SPLITS.index(question.split), question.position))
    images = [
        QuestionImage(question_id=question.question_id, role=role, path=path)
        for question in questions
        for role, path in paths[question.question_id].items()
    ]
    captions_file = folder / "captions.json"
    captions = read_caption_json(captions_file) if captions_file.exists() else None
    if captions is not None:
        captions = {key: text for key, text in captions.items() if key in problems}
    return ScienceQA(
        dataset=dataset, licence=licence, questions=questions, images=images, captions=captions
    )


def _summary(folder: Path, faults: list[str]) -> str:
    shown = "".join(f"\n  {fault}" for fault in faults[:_MAX_SHOWN])
    more = f"\n  and {len(faults) - _MAX_SHOWN} more" if len(faults) > _MAX_SHOWN else ""
    return f"{folder}: {len(faults)} faults in the data set:{shown}{more}"


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(
            f"{path} does not exist; expected a data set in ScienceQA's layout (problems.json, "
            "pid_splits.json, images/): fetch ScienceQA with `mmcot-data download scienceqa OUT`, "
            "or draw a data set with `mmcot-data sample OUT`"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not valid JSON: expected text in UTF-8: {error}") from error
    content = parse_json(text, str(path))
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _identity(folder: Path) -> tuple[str, str]:
    path = folder / "dataset.json"
    if not path.exists():
        return "scienceqa", "CC BY-NC-SA 4.0"
    about = _read_object(path)
    name, licence = about.get("name"), about.get("licence")
    if not (isinstance(name, str) and name and isinstance(licence, str) and licence):
        raise DataError(
            f"{path}: expected the texts 'name' and 'licence', found {name!r} and {licence!r}"
        )
    return name, licence


def _own_split(record: object) -> str | None:
    split = record.get("split") if isinstance(record, dict) else None
    return split if isinstance(split, str) else None


def _record_faults(record: object) -> Iterator[str]:
    if not isinstance(record, dict):
        yield f"expected an object, found {record!r:.80}"
        return
    if missing := [key for key in (*_TEXTS, "choices", "answer", "image") if key not in record]:
        yield f"lacks {', '.join(missing)}"
        return
    for key in _TEXTS:
        if not isinstance(record[key], str):
            yield f"{key} is {record[key]!r:.80}, expected a text"
    choices = record["choices"]
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        yield f"choices is {choices!r:.80}, expected a list of texts"
    if record["answer"] is not None and type(record["answer"]) is not int:
        yield f"answer is {record['answer']!r:.80}, expected an index of the choices or null"
    if record["image"] not in (None, "image.png"):
        yield f"image is {record['image']!r:.80}, expected 'image.png' or null"
