"""Draw rows of a finished feature set at random, spread over its shards."""

import random
from dataclasses import dataclass
from itertools import chain, zip_longest

import polars as pl

__all__ = ["DrawnRow", "draw_rows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnRow:
    """A row of a shard, and the picture that index.parquet says it is of."""

    number: int
    """Of the shard, in the manifest's order."""
    shard: str
    row: int
    question_ids: tuple[str, ...]
    """All questions that share the picture."""
    role: str
    """Image role of the picture for the first of them."""
    file: str | None
    """Its place within the data set for the first of them; None if it is not known."""
    image_sha256: str | None
    """None if it is not known."""
    pixel_sha256: str | None
    """None if it is not known."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"question {self.question_ids[0]} ({self.role})"


def draw_rows(index: pl.DataFrame, num_rows: int, seed: int) -> tuple[list[DrawnRow], int]:
    """Draw distinct rows; the shards take turns, so that each gives about as many as the others.

    Args:
        index: index.parquet, as ``ShardStore.read_index`` gives it.
        num_rows: How many; if there are fewer, all of them.
        seed: Equal seeds draw the same rows of equal indexes.

    Returns:
        The rows, in the order of the shards; and how many there are to draw from.
    """
    all_rows = _list_rows(index)
    by_shard: dict[int, list[DrawnRow]] = {}
    for row in all_rows:
        by_shard.setdefault(row.number, []).append(row)
    generator = random.Random(seed)
    shards = list(by_shard.values())
    generator.shuffle(shards)
    for rows in shards:
        generator.shuffle(rows)
    turns = [row for row in chain.from_iterable(zip_longest(*shards)) if row is not None]
    return sorted(turns[:num_rows], key=lambda row: (row.number, row.row)), len(all_rows)


def _list_rows(index: pl.DataFrame) -> list[DrawnRow]:
    rows = (
        index.filter((pl.col("status") == "ok") & pl.col("row").is_not_null())
        .group_by("number", "shard", "row")
        .agg(
            pl.col("question_id").unique(maintain_order=True).alias("question_ids"),
            pl.col("role", "file", "image_sha256", "pixel_sha256").first(),
        )
        .sort("number", "row")
    )
    return [
        DrawnRow(**row | {"question_ids": tuple(row["question_ids"])})
        for row in rows.iter_rows(named=True)
    ]
