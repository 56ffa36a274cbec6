"""Give the rows of the hub's copy of ScienceQA their question ids back, and prove every one.

The hub's copy has no ids: row i of a split is the i-th id of its official list. That is not taken
on trust: all texts, the answer and the presence of a picture are compared with the question of that
id. Texts count as equal if they differ in nothing but runs of whitespace (null is the empty text);
those that do are counted.

Several questions may have the same texts and answer and different pictures. Their rows are proved
where the official pictures are at hand, by their pixels; else they rest on the order of the rows,
and are counted as such.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcot_data.downloads.faults import Faults
from mmcot_data.downloads.hub_rows import HubRow, read_hub_rows
from mmcot_data.downloads.png_files import png_fault
from mmcot_data.errors import ImageError
from mmcot_data.images import bytes_sha256, decode_rgb, pixel_sha256, read_image_bytes
from mmcot_data.questions import Question

__all__ = ["OfficialPictures", "align_split"]

_TEXTS = (
    "question",
    "hint",
    "task",
    "grade",
    "subject",
    "topic",
    "category",
    "skill",
    "lecture",
    "solution",
)
_PROOF = (
    "rows",
    "by texts",
    "by pixels",
    "interchangeable",
    "by row order",
    "pictures",
    "pictures compared",
    "texts equal up to whitespace",
)
_SHOWN = 60


@dataclass(frozen=True, slots=True)
class OfficialPictures:
    """Official pictures, any part of them: ``<split>/<question id>/`` or ``<question id>/``."""

    folder: Path

    def find(self, question: Question) -> Path | None:
        """The question's picture, if it is at hand."""
        for name in (f"{question.split}/{question.question_id}", question.question_id):
            if (path := self.folder / name / "image.png").is_file():
                return path
        return None


def align_split(
    files: Sequence[Path],
    questions: Sequence[Question],
    official: OfficialPictures | None,
    take: Callable[[Question, bytes], object],
    faults: Faults,
) -> Counter[str]:
    """Compare the rows of one split with its questions, and hand on the pictures.

    Args:
        files: The split's parquet files in their order.
        questions: The split's questions in the official order.
        official: Pictures to compare with.
        take: Given each picture, as long as there is no fault.
        faults: Told what does not align, with file, row, question id and column.

    Returns:
        What the identity of how many rows rests on: ``rows`` of them, of which ``by texts`` alone
        are told from all other questions of the split, ``by pixels``, ``interchangeable`` (equal
        texts and equal pictures), ``by row order``; ``pictures`` and ``pictures compared``;
        ``texts equal up to whitespace``.

    Raises:
        DataError: If a file is no parquet file, or has other columns.
    """
    groups = _group_by_texts(questions)
    proof = Counter(dict.fromkeys(_PROOF, 0))
    pictures: dict[str, str] = {}
    """Digest of the bytes, of pictures of questions that texts do not tell apart."""
    compared: set[str] = set()
    num_rows = 0
    for row in read_hub_rows(files):
        num_rows += 1
        if num_rows > len(questions):
            continue
        question = questions[num_rows - 1]
        where = f"{row.where} (question {question.question_id!r})"
        proof["texts equal up to whitespace"] += _compare_texts(row, question, where, faults)
        data = _compare_presence(row, question, where, faults)
        if data is None:
            continue
        proof["pictures"] += 1
        if official is not None and (path := official.find(question)) is not None:
            _compare_pixels(data, path, where, faults)
            compared.add(question.question_id)
        if len(groups[_texts_key(question)]) > 1:
            pictures[question.question_id] = bytes_sha256(data)
        if not faults:
            take(question, data)
    if num_rows != len(questions):
        names = ", ".join(path.name for path in files)
        faults.add(
            f"{names}: expected {len(questions)} rows, as pid_splits.json has ids; found {num_rows}"
        )
    proof["rows"] = num_rows
    proof["pictures compared"] = len(compared)
    for group in groups.values():
        proof.update(_what_proves(group, pictures, compared))
    return proof


def _texts_key(question: Question) -> tuple[Any, ...]:
    texts = tuple(_collapse(getattr(question, column)) for column in _TEXTS)
    choices = tuple(map(_collapse, question.choices))
    return texts, choices, question.answer, question.has_image


def _group_by_texts(questions: Sequence[Question]) -> dict[tuple[Any, ...], list[Question]]:
    groups = defaultdict(list)
    for question in questions:
        groups[_texts_key(question)].append(question)
    return groups


def _what_proves(
    group: Sequence[Question], pictures: dict[str, str], compared: set[str]
) -> Counter[str]:
    """What the identities of questions with equal texts rest on."""
    if len(group) == 1:
        return Counter({"by texts": 1})
    if len({pictures.get(question.question_id) for question in group}) == 1:
        return Counter({"interchangeable": len(group)})
    by_pixels = sum(question.question_id in compared for question in group)
    return Counter({"by pixels": by_pixels, "by row order": len(group) - by_pixels})


def _compare_texts(row: HubRow, question: Question, where: str, faults: Faults) -> int:
    """How many texts differ in whitespace alone; other differences are faults."""
    pairs = [(column, getattr(question, column), row.values[column]) for column in _TEXTS]
    choices = row.values["choices"] or []
    if len(choices) == len(question.choices):
        pairs += [
            (f"choices[{number}]", expected, found)
            for number, (expected, found) in enumerate(zip(question.choices, choices, strict=True))
        ]
    else:
        faults.add(f"{where}: choices: expected {len(question.choices)}, found {len(choices)}")
    if row.values["answer"] != question.answer:
        faults.add(f"{where}: answer: expected {question.answer}, found {row.values['answer']}")
    num_collapsed = 0
    for column, expected, found in pairs:
        if expected == (found or ""):
            continue
        if _collapse(expected) == _collapse(found or ""):
            num_collapsed += 1
        else:
            faults.add(f"{where}: {column}: {_show_difference(expected, found or '')}")
    return num_collapsed


def _compare_presence(row: HubRow, question: Question, where: str, faults: Faults) -> bytes | None:
    """The picture, if it is as it should be."""
    if row.picture is None:
        if row.has_path_only:
            faults.add(f"{where}: image: has a path, but not the picture's bytes")
        elif question.has_image:
            faults.add(
                f"{where}: image: expected a picture (problems.json names image.png), found none"
            )
        return None
    if not question.has_image:
        faults.add(
            f"{where}: image: expected none (problems.json names none), found a picture of "
            f"{len(row.picture)} bytes"
        )
        return None
    if (fault := png_fault(row.picture)) is not None:
        faults.add(f"{where}: image: {fault}")
        return None
    return row.picture


def _compare_pixels(data: bytes, path: Path, where: str, faults: Faults) -> None:
    try:
        official = read_image_bytes(path)
        if official == data:
            return
        expected = pixel_sha256(decode_rgb(official, str(path)))
        found = pixel_sha256(decode_rgb(data, where))
    except ImageError as error:
        faults.add(f"{where}: image: {error}")
        return
    if expected != found:
        faults.add(
            f"{where}: image: expected the pixels of {path} (pixel_sha256 {expected[:12]}…), found "
            f"others ({found[:12]}…)"
        )


def _collapse(text: str) -> str:
    return " ".join(text.split())


def _show_difference(expected: str, found: str) -> str:
    """Both texts from shortly before the place where they begin to differ."""
    place = next(
        (n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
        min(len(expected), len(found)),
    )
    start = max(0, place - 10)
    shown = [
        ("…" if start else "")
        + text[start : start + _SHOWN]
        + ("…" if len(text) > start + _SHOWN else "")
        for text in (expected, found)
    ]
    return f"expected {shown[0]!r}, found {shown[1]!r}"
