"""``mmcot-data questions``: the tables of a data set, without its pictures."""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mmcot_data.cli.artifact_root import artifact_root
from mmcot_data.cli.subcommand import Subcommands, add_subcommand

if TYPE_CHECKING:
    from mmcot_data.question_tables import QuestionTable

__all__ = ["add_parser"]

_EXAMPLES = """\
  ScienceQA:           mmcot-data questions data/scienceqa --out shards
  your own table:      mmcot-data questions my.csv --out shards
  with a table in it:  mmcot-data questions data/aokvqa --out shards

A table (CSV, JSON lines or parquet) has the columns question, choices and answer, and what else
docs/own-data.md lists. Everything that is wrong with it is reported at once, with line and column.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "questions",
        _run,
        summary="Write questions.parquet, and the captions that the data set has; open no picture.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "data",
        type=Path,
        metavar="DATA",
        help="data set in ScienceQA's official layout, or a table of questions",
    )
    parser.add_argument(
        "--out",
        type=artifact_root,
        required=True,
        help="artifact root: a folder, or s3://BUCKET/NAME",
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.errors import DataError
    from mmcot_data.question_data import find_table, read_data
    from mmcot_data.question_tables import read_question_table
    from mmcot_data.tables import write_tables

    path = find_table(arguments.data)
    if path is None:
        table = None
        data = read_data(arguments.data)
    else:
        table = read_question_table(path)
        data = table.data
        out = arguments.out
        if isinstance(out, Path) and path.resolve() == (out / "questions.parquet").resolve():
            raise DataError(
                f"{path} would be overwritten: give another folder than its own as --out"
            )
    written = write_tables(data, arguments.out)
    splits = Counter(question.split for question in data.questions)
    counts = ", ".join(f"{count} {split}" for split, count in splits.items())
    print(f"{written[0]}: {len(data.questions)} questions ({counts})")
    if data.captions is not None:
        print(f"{written[1]}: {len(data.captions)} captions")
    if table is not None:
        _print_table(table)
    return 0


def _print_table(table: "QuestionTable") -> None:
    """What was made of a table, and what was left out."""
    if table.unused_columns:
        names = (name or "(a column without a name)" for name in table.unused_columns)
        print(f"not used: {', '.join(names)}")
    if table.made_ids:
        print("question ids: made of split, question, choices, hint and pictures")
    if table.assigned_splits is not None:
        print(
            f"splits: {table.assigned_splits} train/val/test, assigned by a hash of each picture's "
            "path, or of the question id where there is no picture"
        )
