"""``mmcot-data captions``: make captions of pictures, import them, and see what they cover."""

import argparse

from mmcot_data.cli.captions import coverage, generate, imported
from mmcot_data.cli.subcommand import Subcommands

__all__ = ["add_parser"]

_SUMMARY = "Write captions/<producer>.parquet: text for pictures, for the context of a question."
_EPILOG = """\
examples:
  by a model:           mmcot-data captions generate data/scienceqa --captioner vit-gpt2 \\
                          --out shards
  without a download:   mmcot-data captions generate sample --captioner tiny --out shards
  of ScienceQA itself:  mmcot-data captions import data/scienceqa/captions.json \\
                          --artifacts shards --producer vit-gpt2
  what there is:        mmcot-data captions coverage shards

`mmcot-data captions COMMAND --help` explains one, with examples.
"""


def add_parser(commands: Subcommands) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "captions",
        help=_SUMMARY,
        description=_SUMMARY,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for action in (generate, imported, coverage):
        action.add_parser(actions)
