"""``mmcot-data rationales keep``: mark which rationales are to be used."""

import argparse

from mmcot_data.cli.rationales.arguments import add_artifacts
from mmcot_data.cli.subcommand import Subcommands, add_subcommand

__all__ = ["add_parser"]

_EXAMPLES = """\
  of the right answer:             mmcot-data rationales keep shards teacher --rule correct
  of the most frequent answer:     mmcot-data rationales keep shards teacher --rule majority
  all of them again:               mmcot-data rationales keep shards teacher --rule all

Only the column `kept` changes; no row is deleted.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    from mmcot_data.rationales import KEEP_RULES

    parser = add_subcommand(
        commands,
        "keep",
        _run,
        summary="Mark the rationales that training uses, by a rule.",
        examples=_EXAMPLES,
    )
    add_artifacts(parser)
    parser.add_argument("producer", metavar="PRODUCER", help="rationales/PRODUCER.parquet")
    parser.add_argument("--rule", choices=KEEP_RULES, required=True)


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.rationales import mark_kept
    from mmcot_data.text_artifacts import artifact_path

    path = artifact_path(arguments.artifacts, "rationales", arguments.producer)
    num_kept, num_rows, num_changed = mark_kept(path, arguments.rule)
    print(f"{path}: {num_kept} of {num_rows} rationales are kept, {num_changed} marks changed")
    return 0
