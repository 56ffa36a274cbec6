"""Which questions have rationales, by producer and split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from mmcot_data.questions import SPLITS, Question
from mmcot_data.rationales import majority_answers, read_rationales

__all__ = ["rationale_coverage"]


def rationale_coverage(
    root: Path, questions: Sequence[Question], producer: str | None = None
) -> list[dict[str, Any]]:
    """Counts of an artifact root.

    Args:
        root: The artifact root.
        questions: All of its questions.
        producer: Only of this table.

    Returns:
        One row for each producer and each split in which it has rationales: ``producer``,
        ``split``, ``questions`` of the split, ``with_rationale``, ``with_kept``, ``rows``,
        ``kept``, ``cut_off`` (at a limit of tokens), ``empty``, ``mean_words``,
        ``correct_percent`` of the rows with an answer that can be judged, and
        ``majority_percent`` of their questions; null where there is none.

    Raises:
        DataError: If a table is damaged or holds unknown questions.
    """
    known = pl.DataFrame(
        [(q.question_id, q.split, q.answer) for q in questions],
        schema={"question_id": pl.String, "split": pl.String, "gold": pl.Int32},
        orient="row",
    )
    report = []
    for path in sorted((root / "rationales").glob(f"{producer or '*'}.parquet")):
        read_rationales(path, questions)  # checks it
        table = pl.read_parquet(path).join(known, on="question_id", maintain_order="left")
        for split in SPLITS:
            rows = table.filter(pl.col("split") == split)
            if not rows.is_empty():
                num_questions = known.filter(pl.col("split") == split).height
                report.append(_row(path.stem, split, num_questions, rows))
    return report


def _row(producer: str, split: str, num_questions: int, rows: pl.DataFrame) -> dict[str, Any]:
    texts = rows["rationale"].str.strip_prefix("Solution:").str.strip_chars()
    words = texts.str.count_matches(r"\S+")
    judged = rows["correct"].drop_nulls()
    gold = dict(rows.select("question_id", "gold").iter_rows())
    majority = majority_answers(rows.iter_rows(named=True))
    right = [answer == gold[key] for key, answer in majority.items() if gold[key] is not None]
    return {
        "producer": producer,
        "split": split,
        "questions": num_questions,
        "with_rationale": rows["question_id"].n_unique(),
        "with_kept": rows.filter("kept")["question_id"].n_unique(),
        "rows": rows.height,
        "kept": int(rows["kept"].sum()),
        "cut_off": int((rows["finish_reason"] == "length").sum()),
        "empty": int((texts == "").sum()),
        "mean_words": round(float(words.sum()) / rows.height, 1),
        "correct_percent": _percent(judged.to_list()),
        "majority_percent": _percent(right),
    }


def _percent(values: Sequence[bool]) -> float | None:
    return round(100 * sum(values) / len(values), 2) if values else None
