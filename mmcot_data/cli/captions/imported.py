"""``mmcot-data captions import``: take over captions that someone else made."""

import argparse
from pathlib import Path

from mmcot_data.cli.subcommand import Subcommands, add_subcommand, local_path

__all__ = ["add_parser"]

_EXAMPLES = """\
  mmcot-data captions import data/scienceqa/captions.json --artifacts shards --producer vit-gpt2
  mmcot-data captions import instruct_captions.json --artifacts shards --producer instructblip
  mmcot-data captions import captions.json --artifacts shards --producer vit-gpt2 --skip-unknown

FILE is {"captions": {question id: text}, ...} as in ScienceQA, or {question id: text} or
{question id: [text]} as Multimodal-CoT's extract_caption.py writes it. What stands beside
"captions" (model, beams, ...) is kept as what made them. Of questions that have only choice images
the caption is that of choice_0.png, as in Multimodal-CoT. Captions of unknown questions are an
error, unless --skip-unknown is given.
"""


def add_parser(actions: Subcommands) -> None:
    """Add the action."""
    parser = add_subcommand(
        actions,
        "import",
        _run,
        summary="Take over captions from a file of ScienceQA or of Multimodal-CoT.",
        examples=_EXAMPLES,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="JSON file of captions")
    parser.add_argument(
        "--artifacts", type=local_path, required=True, help="artifact root, with questions.parquet"
    )
    parser.add_argument("--producer", required=True, metavar="NAME", help="name of the captions")
    parser.add_argument("--role", default="question", help="of the pictures (default: %(default)s)")
    parser.add_argument(
        "--skip-unknown",
        action="store_true",
        help="leave out captions of questions that are not in questions.parquet",
    )


def _run(arguments: argparse.Namespace) -> int:
    from mmcot_data.captioning.importing import import_captions

    summary = import_captions(
        arguments.file,
        arguments.artifacts,
        arguments.producer,
        role=arguments.role,
        skip_unknown=arguments.skip_unknown,
    )
    print(f"{summary.path}: {summary.num_captions} captions")
    for count, what in (
        (summary.num_of_choices, "are of questions with choice images only: role choice_0"),
        (summary.num_without_picture, "are of questions without a picture in questions.parquet"),
        (summary.num_skipped, "more are of unknown questions, and were left out"),
    ):
        if count:
            print(f"  {count} {what}")
    return 0
