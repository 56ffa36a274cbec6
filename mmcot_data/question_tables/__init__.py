"""People's own questions: tables as CSV, JSON lines or parquet; docs/own-data.md has the schema."""

from mmcot_data.question_tables.find import find_question_table
from mmcot_data.question_tables.read import QuestionTable, read_question_table

__all__ = ["QuestionTable", "find_question_table", "read_question_table"]
