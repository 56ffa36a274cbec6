"""The pictures that a table of questions names."""

from pathlib import Path

from mmcot_data.errors import DataError
from mmcot_data.question_tables import find_question_table, read_question_table
from mmcot_data.scienceqa import ScienceQA
from mmcot_data.sources.markers import TABLE_NAMES

__all__ = ["read_table"]


def read_table(path: Path) -> tuple[ScienceQA, Path]:
    """Read a table of questions.

    Args:
        path: The table, or a folder with one that is called ``questions``.

    Returns:
        The questions, and the folder that the table is in.

    Raises:
        DataError: As ``read_question_table``, or if there is no such table.
    """
    table = path if path.is_file() else find_question_table(path)
    if table is None:
        raise DataError(
            f"{path} has no table of questions: expected a file in it that is called "
            f"{' or '.join(TABLE_NAMES)}"
        )
    return read_question_table(table).data, table.parent
