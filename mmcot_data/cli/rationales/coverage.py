"""``mmcot-data rationales coverage``: what there is, split by split."""

import argparse
import json

from mmcot_data.cli.rationales.arguments import add_artifacts
from mmcot_data.cli.subcommand import Subcommands, add_subcommand

__all__ = ["add_parser"]

_EXAMPLES = """\
  mmcot-data rationales coverage shards
  mmcot-data rationales coverage shards --show teacher
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser = add_subcommand(
        commands,
        "coverage",
        _run,
        summary="Say which questions have rationales by which producer, and how many are right.",
        examples=_EXAMPLES,
    )
    add_artifacts(parser)
    parser.add_argument(
        "--show", metavar="PRODUCER", help="print what made it, and three of its rationales"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from mmcot_data.questions import read_questions
    from mmcot_data.rationale_coverage import rationale_coverage
    from mmcot_data.rationales import read_rationales
    from mmcot_data.text_artifacts import artifact_path, read_made_by

    questions = read_questions(arguments.artifacts)
    rows = rationale_coverage(arguments.artifacts, questions)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    elif not rows:
        print(f"{arguments.artifacts / 'rationales'}: no rationales")
    else:
        table = Table(box=None, pad_edge=False)
        for name in rows[0]:
            is_text = name in ("producer", "split")
            table.add_column(name.replace("_", " "), justify="left" if is_text else "right")
        for row in rows:
            table.add_row(*("-" if value is None else f"{value}" for value in row.values()))
        Console(width=160, highlight=False).print(table)
    if arguments.show:
        path = artifact_path(arguments.artifacts, "rationales", arguments.show)
        print(json.dumps(read_made_by(path), indent=2, ensure_ascii=False))
        for rationale in read_rationales(path, questions)[:3]:
            print(f"{rationale.question_id}: {rationale.rationale}")
    return 0
