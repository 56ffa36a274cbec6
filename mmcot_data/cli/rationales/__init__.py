"""``mmcot-data rationales``: rationales by producer, and what is done with them.

Producers that need more than mmcot_data, such as a trained model, are added by entry points of the
group ``mmcot_data.rationales``: functions that are given the subparsers.
"""

import argparse
from importlib.metadata import entry_points

from mmcot_data.cli.rationales import coverage, gold, imported, keep, teacher, vote
from mmcot_data.cli.subcommand import Subcommands

__all__ = ["add_parser"]

_SUMMARY = (
    "Write rationales/<producer>.parquet: by which stage 2 learns, and from which it answers."
)
_EPILOG = """\
examples:
  the data set's own:          mmcot-data rationales gold shards
  of a trained stage 1:        mmcot-data rationales stage1 shards --run runs/detr-tiny
  for training without leaks:  mmcot-data rationales stage1-kfold shards --features shards/detr
  a language model's:          mmcot-data rationales teacher shards --model Qwen/Qwen3-8B \\
                                 --split train --samples 4 --temperature 0.7
  of Multimodal-CoT's code:    mmcot-data rationales import shards predictions_ans_test.json \\
                                 --split test --prompt-format QCM-E --producer mm-cot
  what there is:               mmcot-data rationales coverage shards

`mmcot-data rationales COMMAND --help` explains one, with examples. Each can be stopped and goes on
with the same command; what is there is not made again.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "rationales",
        help=_SUMMARY,
        description=_SUMMARY,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    producers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    gold.add_parser(producers)
    for entry in sorted(entry_points(group="mmcot_data.rationales"), key=lambda entry: entry.name):
        entry.load()(producers)
    for module in (teacher, imported, keep, vote, coverage):
        module.add_parser(producers)
