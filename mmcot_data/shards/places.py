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

__all__ = ["Places", "check_roles", "find_places", "sort_roles"]

_ROLE = re.compile(r"(question|choice)(_\d+)?")


@dataclass(frozen=True, slots=True)
class Places:
    """The place of every question's features.

    The arrays have one row more than there are questions, the last one for absent questions.
    """

    roles: tuple[str, ...]
    """The roles that were asked for, in their order."""
    positions: dict[str, int]
    """Row of the arrays by question id."""
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
        index: index.parquet, with ``number``.
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
    index = index.filter(pl.col("row").is_not_null())
    names = sort_roles(index["role"].unique().to_list()) if roles == "all" else list(roles)
    rank = pl.DataFrame(
        {"role": names, "rank": range(len(names))}, schema={"role": pl.String, "rank": pl.Int64}
    )
    chosen = index.with_row_index("order").join(rank, on="role").sort("order")
    if combine == "first":
        chosen = (
            chosen.sort("rank", maintain_order=True)
            .unique("question_id", keep="first", maintain_order=True)
            .sort("order")
            .with_columns(rank=pl.lit(0, pl.Int64))
        )
    question_ids = chosen["question_id"].unique(maintain_order=True).to_list()
    positions = {question_id: position for position, question_id in enumerate(question_ids)}
    shape = (len(positions) + 1, 1 if combine == "first" else len(names))
    items = [positions[question_id] for question_id in chosen["question_id"]]
    ranks, numbers, rows = (
        np.array(chosen[column].to_list(), np.int64) for column in ("rank", "number", "row")
    )
    rows_QR = np.full(shape, mapped.zero, np.int64)
    rows_QR[items, ranks] = mapped.starts[numbers] + rows
    num_patches_QR = np.zeros(shape, np.int32)
    num_patches_QR[items, ranks] = chosen["num_patches"].to_list()
    return Places(tuple(names), positions, rows_QR, num_patches_QR)


def check_roles(roles: Sequence[str]) -> None:
    """Refuse what can't be a choice of image roles.

    Raises:
        ValueError: If it is neither ``all`` nor a list of roles.
    """
    if roles != "all" and (
        isinstance(roles, str) or not roles or not all(_ROLE.fullmatch(role) for role in roles)
    ):
        raise ValueError(
            f"roles is {roles!r}, expected all, or a list of image roles such as question, "
            "question_2 and choice_0"
        )


def sort_roles(roles: Sequence[str]) -> list[str]:
    """Roles in their natural order: question, question_2, choice_0, …, choice_10."""

    def key(role: str) -> tuple[bool, str, int]:
        name, _, number = role.rpartition("_")
        if not number.isdecimal():
            name, number = role, "0"
        return name != "question", name, int(number)

    return sorted(roles, key=key)
