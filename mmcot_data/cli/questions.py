"""``mmcot-data questions``: the tables of a data set, without its pictures."""

import argparse
from collections import Counter
from pathlib import Path

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path

__all__ = ["add_parser"]

_EXAMPLES = """\
  mmcot-data questions data/scienceqa --out shards
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
        "data", type=Path, metavar="DATA", help="data set in ScienceQA's official layout"
    )
    parser.add_argument("--out", type=local_path, required=True, help="artifact root")


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.scienceqa import read_scienceqa
    from mmcot_data.tables import write_tables

    data = read_scienceqa(arguments.data)
    written = write_tables(data, arguments.out)
    splits = Counter(question.split for question in data.questions)
    counts = ", ".join(f"{count} {split}" for split, count in splits.items())
    print(f"{written[0]}: {len(data.questions)} questions ({counts})")
    if data.captions is not None:
        print(f"{written[1]}: {len(data.captions)} captions")
    return 0
