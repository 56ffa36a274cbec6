"""``mmcot-data captions coverage``: which pictures have captions, and what they look like."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from mmcot_data.cli.subcommand import Subcommands, add_subcommand

if TYPE_CHECKING:
    from mmcot_data.captioning.coverage import CaptionCoverage

__all__ = ["add_parser"]

_MAX_SHOWN = 120

_EXAMPLES = """\
  mmcot-data captions coverage shards
  mmcot-data captions coverage shards --producer vit-gpt2 --json > coverage.json
"""


def add_parser(actions: Subcommands) -> None:
    """Add the action."""
    parser = add_subcommand(
        actions,
        "coverage",
        _run,
        summary="Count pictures with and without captions in each split, and show some captions.",
        examples=_EXAMPLES,
    )
    parser.add_argument("artifacts", type=Path, metavar="ARTIFACTS", help="artifact root")
    parser.add_argument("--producer", metavar="NAME", help="only these captions")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.captioning.coverage import caption_coverage, find_producers

    producers = [arguments.producer] if arguments.producer else find_producers(arguments.artifacts)
    found = [caption_coverage(arguments.artifacts, producer) for producer in producers]
    if arguments.json:
        records = [asdict(each) | {"path": str(each.path)} for each in found]
        print(json.dumps(records, indent=2, ensure_ascii=False))
        return 0
    for coverage in found:
        _print_coverage(coverage)
    return 0


def _print_coverage(coverage: "CaptionCoverage") -> None:
    print(f"{coverage.path}: {coverage.num_captions} captions")
    if coverage.num_without_picture:
        print(f"  {coverage.num_without_picture} of pictures that questions.parquet does not list")
    print(f"  {'split':6} {'role':11} pictures captions missing empty mean words")
    for each in coverage.roles:
        words = "-" if each.mean_words is None else f"{each.mean_words:.1f}"
        print(
            f"  {each.split:6} {each.role:11} {each.num_pictures:8} {each.num_captions:8} "
            f"{each.num_missing:7} {each.num_empty:5} {words:>10}"
        )
        for question_id, text in each.samples:
            print(f"      {question_id}: {shorten(text, _MAX_SHOWN, placeholder=' …')}")
