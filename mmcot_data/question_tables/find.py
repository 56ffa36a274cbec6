"""Recognise tables of questions."""

from pathlib import Path
from typing import Final

from mmcot_data.errors import DataError
from mmcot_data.question_tables.parquet_rows import is_question_parquet, is_questions_artifact
from mmcot_data.sources.markers import TABLE_NAMES, TABLE_SUFFIXES

__all__ = ["PARQUET", "find_question_table"]

PARQUET: Final = ".parquet"


def find_question_table(path: Path) -> Path | None:
    """The table of questions that a path stands for; None if it is none.

    A parquet file with pictures in it is not: its texts are left to others.

    Args:
        path: A table, or a folder with one that is called ``questions``.

    Raises:
        DataError: If a folder has several.
        OSError: If reading a parquet file's schema fails.
    """
    if not path.is_dir():
        return path if path.is_file() and _is_table(path) else None
    tables = [path / name for name in TABLE_NAMES if (path / name).is_file()]
    tables = [table for table in tables if _is_table(table)]
    if len(tables) > 1:  # an artifact root may be the folder of the table that it was made of
        tables = [table for table in tables if not _is_artifact(table)]
    if len(tables) > 1:
        names = " and ".join(table.name for table in tables)
        raise DataError(f"{path} holds {names}: expected one table of questions; give the file")
    return tables[0] if tables else None


def _is_table(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in TABLE_SUFFIXES or (suffix == PARQUET and is_question_parquet(path))


def _is_artifact(path: Path) -> bool:
    return path.suffix == PARQUET and is_questions_artifact(path)
