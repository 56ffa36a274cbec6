"""The question, and the table of questions that every stage reads (questions.parquet)."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.files import write_parquet
from mmcot_data.text_artifacts import read_artifact

__all__ = [
    "MINI_SPLITS",
    "OPTION_LETTERS",
    "SPLITS",
    "Question",
    "read_questions",
    "select_split",
    "split_names",
    "write_questions",
]

OPTION_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SPLITS = ("train", "val", "test")
MINI_SPLITS = {"minitrain": "train", "minival": "val", "minitest": "test"}

_NULLABLE = ("mini_position", "answer")
_SCHEMA = pl.Schema(
    {
        "dataset": pl.String(),
        "question_id": pl.String(),
        "split": pl.String(),
        "position": pl.Int32(),
        "mini_position": pl.Int32(),
        "question": pl.String(),
        "choices": pl.List(pl.String()),
        "answer": pl.Int32(),
        "hint": pl.String(),
        "lecture": pl.String(),
        "solution": pl.String(),
        "subject": pl.String(),
        "topic": pl.String(),
        "category": pl.String(),
        "skill": pl.String(),
        "grade": pl.String(),
        "task": pl.String(),
        "has_image": pl.Boolean(),
        "image_roles": pl.List(pl.String()),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One multiple-choice question; the fields are the columns of questions.parquet.

    Raises:
        DataError: If there are fewer than two choices, or the answer is not one of them.
    """

    dataset: str
    question_id: str
    """Identity within the data set; ScienceQA's pid as a string."""
    split: str
    """``train``, ``val`` or ``test``."""
    position: int
    """Place in the official list of its split."""
    mini_position: int | None = None
    """Place in the official mini split (minitrain, minival, minitest); None if it is not in it."""
    question: str
    choices: tuple[str, ...]
    answer: int | None
    """Index into ``choices``; None where the data set hides it."""
    hint: str = ""
    lecture: str = ""
    solution: str = ""
    subject: str = ""
    topic: str = ""
    category: str = ""
    skill: str = ""
    grade: str = ""
    task: str = ""
    has_image: bool = False
    """The record names a question image. Choice images alone do not count."""
    image_roles: tuple[str, ...] = ()
    """Roles of all its pictures: ``question``, ``question_2``, ``choice_0``, …"""

    def __post_init__(self) -> None:
        where = f"question {self.question_id!r}"
        if self.split not in SPLITS:
            raise DataError(
                f"{where}: split is {self.split!r}, expected one of {', '.join(SPLITS)}"
            )
        if not 2 <= len(self.choices) <= len(OPTION_LETTERS):
            raise DataError(
                f"{where}: {len(self.choices)} choices, expected 2 to {len(OPTION_LETTERS)}"
            )
        if self.answer is not None and not 0 <= self.answer < len(self.choices):
            raise DataError(
                f"{where}: answer is {self.answer}, expected an index below {len(self.choices)}"
            )


def write_questions(path: Path, questions: Iterable[Question]) -> None:
    """Write questions.parquet, ordered by split and official position.

    Raises:
        DataError: If two questions have the same id, or two share a place in a split.
    """
    rows = [asdict(question) for question in questions]
    table = pl.DataFrame(rows, schema=_SCHEMA).with_columns(
        _split_rank=pl.col("split").replace_strict({s: i for i, s in enumerate(SPLITS)})
    )
    for key in (["question_id"], ["split", "position"]):
        duplicates = table.filter(pl.struct(key).is_duplicated())
        if not duplicates.is_empty():
            found = duplicates.select(key).row(0)
            raise DataError(f"{path}: {' '.join(key)} {found} occurs {duplicates.height} times")
    write_parquet(path, table.sort("_split_rank", "position").drop("_split_rank"))


def read_questions(path: Path) -> list[Question]:
    """Read questions.parquet in its order.

    Args:
        path: The file, or the artifact root that holds it.

    Raises:
        DataError: If the file is absent or not parquet, its columns are others, a value is
            missing, or two rows have the same question id.
    """
    if path.is_dir() or path.suffix != ".parquet":
        path = path / "questions.parquet"
    if not path.is_file():
        if url := re.fullmatch(r"([a-z][a-z0-9+.-]+):/+(.+)/questions.parquet", str(path)):
            raise DataError(
                f"{url[1]}://{url[2]}: expected a folder as artifact root, found a URL, which only "
                "features are read from: copy its questions.parquet, and the captions and "
                "rationales that are wanted, into a folder and give that"
            )
        raise DataError(
            f"{path} does not exist; make it with `mmcot-data questions DATA --out {path.parent}`"
        )
    try:
        table = read_artifact(path, _SCHEMA, ["question_id"], _NULLABLE)
    except DataError as error:
        raise DataError(
            f"{error}; another folder can be the artifact root; or, if this file is not needed, "
            f"delete it and make it anew with `mmcot-data questions DATA --out {path.parent}`"
        ) from error
    names = [field.name for field in fields(Question)]
    return [_from_row(row) for row in table.select(names).iter_rows(named=True)]


def select_split(questions: Sequence[Question], name: str) -> list[Question]:
    """The questions of a split in its official order.

    Args:
        questions: All questions.
        name: ``train``, ``val``, ``test``, ``trainval`` or an official mini split.

    Raises:
        DataError: If there is no such split, or it is empty.
    """
    if name == "trainval":
        return select_split(questions, "train") + select_split(questions, "val")
    if name in SPLITS:
        chosen = sorted((q for q in questions if q.split == name), key=lambda q: q.position)
    elif name in MINI_SPLITS:
        placed = [
            (q.mini_position, q)
            for q in questions
            if q.split == MINI_SPLITS[name] and q.mini_position is not None
        ]
        chosen = [q for _, q in sorted(placed, key=lambda pair: pair[0])]
    else:
        raise DataError(f"no split {name!r}; expected one of {', '.join(split_names())}")
    if not chosen:
        there = ", ".join(dict.fromkeys(question.split for question in questions)) or "none"
        raise DataError(
            f"the split {name!r} has no questions in this data set, which has those of: {there}; "
            "name another split, or give some questions this one"
        )
    return chosen


def split_names() -> list[str]:
    """All names that ``select_split`` knows."""
    return [*SPLITS, "trainval", *MINI_SPLITS]


def _from_row(row: dict[str, Any]) -> Question:
    return Question(
        **row | {"choices": tuple(row["choices"]), "image_roles": tuple(row["image_roles"])}
    )
