"""Read a data set's questions in whatever form they are; no picture is opened."""

from pathlib import Path

from mmcot_data.errors import DataError
from mmcot_data.question_tables import find_question_table, read_question_table
from mmcot_data.scienceqa import ScienceQA, read_scienceqa
from mmcot_data.sources.markers import PROBLEMS, TABLE_NAMES

__all__ = ["find_table", "read_data"]


def read_data(path: Path, *, split_shares: str | None = None) -> ScienceQA:
    """Read the questions, captions and picture paths of a data set.

    Args:
        path: A folder in ScienceQA's layout, a table of questions, or a folder with one that is
            called ``questions``.
        split_shares: As for ``read_question_table``.

    Raises:
        DataError: If it is none of these, or as ``read_scienceqa`` and ``read_question_table``.
        OSError: If reading fails.
    """
    table = find_table(path)
    if table is not None:
        return read_question_table(table, split_shares=split_shares).data
    if split_shares is not None:
        raise DataError(f"{path} names the splits itself: leave out the split shares")
    return read_scienceqa(path)


def find_table(path: Path) -> Path | None:
    """The table of questions that a path stands for; None for a folder in ScienceQA's layout.

    Raises:
        DataError: If it is neither.
        OSError: If reading fails.
    """
    if (path / PROBLEMS).is_file():
        return None
    table = find_question_table(path)
    if table is None:
        found = "does not exist" if not path.exists() else "is neither"
        raise DataError(
            f"{path} {found}: expected a folder in ScienceQA's layout ({PROBLEMS}; `mmcot-data "
            "sample OUT` draws one), or a table of questions: a file that ends in .csv, .tsv, "
            f".jsonl or .parquet, or a folder with {' or '.join(TABLE_NAMES)}"
        )
    return table
