"""One answer of several samples: voting (self-consistency, Wang et al., arXiv 2203.11171)."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from mmcot_data.errors import DataError
from mmcot_data.rationales import Rationale, majority_answers
from mmcot_data.row_files import write_rows

__all__ = ["Vote", "vote", "write_votes"]

_SCHEMA = pl.Schema(
    {
        "question_id": pl.String(),
        "answer": pl.Int32(),
        "rationale": pl.String(),
        "num_votes": pl.Int32(),
        "num_samples": pl.Int32(),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Vote:
    """What the samples of a question answer together."""

    question_id: str
    answer: int | None
    """None if no sample has an answer."""
    rationale: str
    """Of the first sample that gives the answer; of the first sample if none does."""
    num_votes: int
    """Samples that give the answer."""
    num_samples: int


def vote(rationales: Sequence[Rationale]) -> list[Vote]:
    """Votes of all samples, kept or not, question by question in the order of the rows.

    Raises:
        DataError: If no rationale draws an answer.
    """
    if all(rationale.answer is None for rationale in rationales):
        raise DataError(
            "none of the rationales draws an answer, so that there is nothing to vote on: stage 1 "
            "writes none; a teacher does"
        )
    answers = majority_answers(asdict(rationale) for rationale in rationales)
    samples: dict[str, list[Rationale]] = {}
    for rationale in rationales:
        samples.setdefault(rationale.question_id, []).append(rationale)
    votes = []
    for question_id, rows in samples.items():
        answer = answers.get(question_id)
        rows = sorted(rows, key=lambda row: row.sample)
        agreeing = [row for row in rows if answer is not None and row.answer == answer]
        votes.append(
            Vote(
                question_id=question_id,
                answer=answer,
                rationale=(agreeing or rows)[0].rationale,
                num_votes=len(agreeing),
                num_samples=len(rows),
            )
        )
    return votes


def write_votes(path: Path, votes: Iterable[Vote]) -> None:
    """Write votes as predictions that ``mmcot-evaluate --predictions`` reads, atomically.

    Args:
        path: A ``.parquet`` file, or ``.jsonl`` with one JSON object a line.
        votes: The rows; their order is kept.

    Raises:
        DataError: If the name ends in something else.
    """
    rows = [asdict(each) for each in votes]
    write_rows(path, rows, _SCHEMA)
