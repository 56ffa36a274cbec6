"""Check pid_splits.json against problems.json, and say where each question stands."""

from typing import Any

import polars as pl

from mmcot_data.questions import MINI_SPLITS, SPLITS

__all__ = ["Place", "question_places"]

Place = tuple[int, int | None]
"""Position in the list of its split, and in that of its mini split."""

_SPLIT_OF_LIST = {split: split for split in SPLITS} | MINI_SPLITS
_LISTS = (*_SPLIT_OF_LIST, "trainval")


def question_places(
    own_splits: dict[str, str | None], lists: dict[str, Any]
) -> tuple[dict[str, Place], list[str]]:
    """Places of the questions in the official lists.

    Args:
        own_splits: The split that each question's record names, by question id; None if the
            record is broken, which is not reported here.
        lists: Content of pid_splits.json.

    Returns:
        The places by question id, and one sentence for each fault: an unknown list, a list of
        something else than ids, an unknown or repeated id, a question in no split or in another
        split than its record names.
    """
    faults = []
    for name, ids in lists.items():
        if name not in _LISTS:
            faults.append(f"{name!r} is no split; expected some of {', '.join(_LISTS)}")
        elif not isinstance(ids, list) or not all(isinstance(i, str) for i in ids):
            faults.append(f"{name}: expected a list of question ids as texts")
    if faults:
        return {}, faults
    if "trainval" in lists and lists["trainval"] != lists.get("train", []) + lists.get("val", []):
        faults.append("trainval: expected the list of train followed by that of val")

    entries = pl.DataFrame(
        [
            (name, split, position, question_id)
            for name, split in _SPLIT_OF_LIST.items()
            for position, question_id in enumerate(lists.get(name, []))
        ],
        schema={"list": pl.String, "split": pl.String, "position": pl.Int32, "id": pl.String},
        orient="row",
    )
    main = entries.filter(pl.col("list").is_in(SPLITS))
    mini = entries.filter(pl.col("list").is_in(list(MINI_SPLITS)))
    mini_positions = dict(mini.select("id", "position").iter_rows())
    places = {
        question_id: (position, mini_positions.get(question_id))
        for question_id, position in main.select("id", "position").iter_rows()
    }
    return places, faults + _list_faults(entries, own_splits)


def _list_faults(entries: pl.DataFrame, own_splits: dict[str, str | None]) -> list[str]:
    records = pl.DataFrame(
        {"id": list(own_splits), "own": list(own_splits.values())},
        schema={"id": pl.String, "own": pl.String},
    )
    unknown = entries.join(records, on="id", how="anti", maintain_order="left")
    repeated = entries.filter(
        pl.struct("list", "id").is_duplicated() & ~pl.struct("list", "id").is_first_distinct()
    )
    elsewhere = entries.join(records, on="id", maintain_order="left").filter(
        pl.col("own") != pl.col("split")
    )
    main = entries.filter(pl.col("list").is_in(SPLITS))
    unlisted = records.join(main, on="id", how="anti", maintain_order="left")
    return [
        *(
            f"{name}: question {question_id!r} is not in problems.json"
            for name, question_id in unknown.select("list", "id").iter_rows()
        ),
        *(
            f"{name}: question {question_id!r} occurs more than once"
            for name, question_id in repeated.select("list", "id").iter_rows()
        ),
        *(
            f"{name}: question {question_id!r} has split {own!r} in problems.json"
            for name, question_id, own in elsewhere.select("list", "id", "own").iter_rows()
        ),
        *(
            f"question {question_id!r} of problems.json is in none of {', '.join(SPLITS)}"
            for question_id in unlisted["id"]
        ),
    ]
