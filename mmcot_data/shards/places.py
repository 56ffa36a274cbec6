"""Which row belongs to which question: the index, for one image role or for several.

Shape suffixes: Q = questions, R = pictures side by side: the image roles, or 1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from mmcot_data.shards.mapped import MappedRows
from mmcot_data.shards.question_ids import QuestionIds, index_ids

__all__ = ["Places", "check_roles", "find_places", "sort_roles"]

_ROLE = re.compile(r"(question|choice)(_\d+)?")


@dataclass(frozen=True, slots=True)
class Places:
    """The place of every question's features.

    The arrays have one row more than there are questions, the last one for absent questions.
    """

    roles: tuple[str, ...]
    """The roles that were asked for, in their order."""
    positions: QuestionIds
    """The questions' ids in the order of the arrays' rows; it finds an id's position."""
    rows_QR: npt.NDArray[np.int64]
    """Row of ``MappedRows``; its row of zeros where the question has no such picture."""
    num_patches_QR: npt.NDArray[np.int32]
    """Valid patches; 0 where the question has no such picture."""


def find_places(
    index: pl.DataFrame,
    mapped: MappedRows,
    roles: Sequence[str] | Literal["all"],
    combine: Literal["first", "all"],
) -> Places:
    """Choose the features of each question.

    Args:
        index: index.parquet with ``number``, as ``read_index`` gives it: its columns ``PLACES``
            are enough, and no question has a role twice.
        mapped: The shards.
        roles: Image roles in the order of preference; ``all`` is every role of the index.
        combine: ``first``: a question is given the first of the roles that it has. ``all``: it is
            given all of them, side by side.

    Raises:
        ValueError: If an argument is not one of those that are possible.
    """
    check_roles(roles)
    if combine not in ("first", "all"):
        raise ValueError(f"combine is {combine!r}, expected first or all")
    has_row = index["row"].is_not_null()
    found = index["role"].filter(has_row).unique()
    names = sort_roles(found.to_list()) if roles == "all" else list(roles)
    rank = index["role"].replace_strict(
        names, list(range(len(names))), default=None, return_dtype=pl.UInt16
    )
    chosen = index.select("question_id", "number", "row", "num_patches", rank=rank)
    keep = has_row & rank.is_not_null()
    if not keep.all():  # at a hundred million rows, a copy is gigabytes
        chosen = chosen.filter(keep)
    del index, has_row, rank, keep
    if combine == "first":
        chosen = _choose_first(chosen)
    items, num_questions = np.arange(chosen.height), chosen.height
    if chosen["rank"].n_unique() > 1:
        items, question_ids = _number_questions(chosen["question_id"])
        num_questions = len(question_ids)
    else:  # with one role, no question is there twice
        question_ids = chosen.drop_in_place("question_id")
    shape = (num_questions + 1, 1 if combine == "first" else len(names))
    numbers, rows, ranks = (chosen[column].to_numpy() for column in ("number", "row", "rank"))
    rows_QR = np.full(shape, mapped.zero, np.int64)
    rows_QR[items, ranks] = mapped.starts[numbers] + rows
    num_patches_QR = np.zeros(shape, np.int32)
    num_patches_QR[items, ranks] = chosen["num_patches"].to_numpy()
    del chosen, items, numbers, rows, ranks
    return Places(tuple(names), index_ids(question_ids), rows_QR, num_patches_QR)


def _choose_first(chosen: pl.DataFrame) -> pl.DataFrame:
    """Each question's picture of the lowest rank, in their order; they have rank 0 then."""
    if chosen["rank"].n_unique() > 1:
        chosen = (
            chosen.with_row_index("order")
            .sort("rank", maintain_order=True)
            .unique("question_id", keep="first", maintain_order=True)
            .sort("order")
        )
    return chosen.with_columns(rank=pl.lit(0, pl.UInt16))


def _number_questions(question_ids: pl.Series) -> tuple[npt.NDArray[np.intp], pl.Series]:
    """The number of each row's question, and the questions' ids, in the order of first rows."""
    questions = question_ids.unique(maintain_order=True).alias("question_id")
    rows = question_ids.to_frame("question_id").join(
        questions.to_frame().with_row_index("item"), on="question_id", maintain_order="left"
    )
    return rows["item"].to_numpy().astype(np.intp), questions


def check_roles(roles: Sequence[str]) -> None:
    """Refuse what can't be a choice of image roles.

    Raises:
        ValueError: If it is neither ``all`` nor a list of roles.
    """
    if roles != "all" and (
        isinstance(roles, str)
        or not roles
        or not all(_ROLE.fullmatch(role) for role in roles)
        or len(set(roles)) < len(roles)
    ):
        raise ValueError(
            f"roles is {roles!r}, expected all, or a list of image roles such as question, "
            "question_2 and choice_0, each once"
        )


def sort_roles(roles: Sequence[str]) -> list[str]:
    """Roles in their natural order: question, question_2, choice_0, …, choice_10."""

    def key(role: str) -> tuple[bool, str, int]:
        name, _, number = role.rpartition("_")
        if not number.isdecimal():
            name, number = role, "0"
        return name != "question", name, int(number)

    return sorted(roles, key=key)
